"""Lifting depth to points: laws, a loop over pixels beside it, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.geometry.strategies import clips, laws, pinholes
from worldstereo.errors import CameraError, MediaError
from worldstereo.geometry.lift import contract_depth, depth_edges, lift_depth
from worldstereo.geometry.projection import project_points

HEIGHT, WIDTH = 7, 9
PINHOLE = torch.tensor([[8.0, 0, 4.5], [0, 8, 3.5], [0, 0, 1]])


def random_depth(seed: int, *, holes: bool) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    depth = 1 + 4 * torch.rand(HEIGHT, WIDTH, generator=generator)
    depth[torch.rand(HEIGHT, WIDTH, generator=generator) < 0.1] *= 30
    if holes:
        depth[torch.rand(HEIGHT, WIDTH, generator=generator) < 0.1] = 0
    return depth


def smooth_depth() -> Tensor:
    y, x = torch.meshgrid(torch.arange(HEIGHT), torch.arange(WIDTH), indexing="ij")
    return 3 + 0.001 * x + 0.002 * y


def slow_edges(depth: np.ndarray, threshold: float) -> np.ndarray:
    """The specification, pixel by pixel, in float64."""
    disparity = 1 / (depth + 1e-7)
    disparity = (disparity - disparity.min()) / (disparity.max() - disparity.min() + 1e-6)
    height, width = depth.shape
    edges = np.zeros(depth.shape, dtype=bool)
    for row in range(height):
        for column in range(width):
            gradient = [0.0, 0.0]
            for down in (-1, 0, 1):
                for right in (-1, 0, 1):
                    y, x = (
                        min(max(row + down, 0), height - 1),
                        min(max(column + right, 0), width - 1),
                    )
                    gradient[0] += right * (2 - abs(down)) * disparity[y, x]
                    gradient[1] += down * (2 - abs(right)) * disparity[y, x]
            edges[row, column] = math.exp(-10 * math.hypot(*gradient)) < threshold
    return edges


@laws
@given(st.integers(0, 10**6), st.booleans(), st.floats(0.05, 0.95))
def test_edges_follow_the_specification(seed, holes, threshold):
    depth = random_depth(seed, holes=holes).double()
    expected = slow_edges(depth.numpy(), threshold)
    np.testing.assert_array_equal(depth_edges(depth, threshold).numpy(), expected)


def test_with_an_invalid_pixel_only_its_surroundings_are_edges():
    depth = smooth_depth()
    depth[:, 5:] += 2
    assert depth_edges(depth).any()
    depth[1, 1] = 0
    edges = depth_edges(depth)
    assert edges[:3, :3].sum() == 8  # the Sobel gradient at the invalid pixel itself is 0
    assert edges.sum() == 8


@laws
@given(st.integers(0, 10**6), st.floats(1.5, 12))
def test_contraction_is_bounded_increasing_and_leaves_the_near_field(seed, contract):
    depth = random_depth(seed, holes=True)
    positive = sorted(depth[depth > 0].tolist())
    limit = contract * positive[(len(positive) - 1) // 2]
    contracted = contract_depth(depth, contract)
    near = depth <= limit
    assert torch.equal(contracted[near], depth[near])
    for before, after in zip(depth[~near].tolist(), contracted[~near].tolist(), strict=True):
        assert after == pytest.approx(2 * limit - limit**2 / before, rel=1e-4)
        assert limit * (1 - 1e-4) <= after < 2 * limit
    order = depth.flatten().argsort()
    assert (contracted.flatten()[order].diff() >= -1e-4 * limit).all()


@laws
@given(st.integers(0, 10**6), clips(1, 1), pinholes(HEIGHT, WIDTH), st.booleans())
def test_points_project_to_their_pixel_centers(seed, cameras, intrinsics, holes):
    depth = random_depth(seed, holes=holes)
    valid = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) > 0.1
    image = torch.rand(3, HEIGHT, WIDTH)
    # No gradient of disparities in [0, 1] is as steep as that: nothing is an edge.
    points, colors = lift_depth(
        image, depth, valid, intrinsics, cameras[0], contract=3, sobel_threshold=1e-30
    )
    assert points.dtype == torch.float32
    contracted = contract_depth(torch.where(valid, depth, 0), 3)
    rows, columns = (contracted > 0).nonzero(as_tuple=True)
    u, v, z = project_points(points, cameras[0], intrinsics)
    torch.testing.assert_close(u, columns + 0.5, atol=2e-3, rtol=0, check_dtype=False)
    torch.testing.assert_close(v, rows + 0.5, atol=2e-3, rtol=0, check_dtype=False)
    torch.testing.assert_close(z.float(), contracted[rows, columns], atol=1e-4, rtol=1e-5)
    assert torch.equal(colors, image[:, rows, columns].T)


@pytest.mark.parametrize("count", range(9))
def test_eight_points_are_too_few(count):
    depth, valid = smooth_depth(), torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    valid[3, :count] = True
    with pytest.raises(MediaError, match=rf"got \d points; {count / 63:.2%} of the 7 x 9") as error:
        lift_depth(torch.zeros(3, HEIGHT, WIDTH), depth, valid, PINHOLE, torch.eye(4))
    assert "more than 8" in str(error.value)


def test_nine_points_are_enough():
    depth = torch.full((3, 3), 2.0)
    points, _ = lift_depth(torch.zeros(3, 3, 3), depth, depth > 0, PINHOLE, torch.eye(4))
    assert len(points) == 9
    with pytest.raises(MediaError, match=r"8 points; 100\.00%"):
        lift_depth(
            torch.zeros(3, 2, 4),
            torch.full((2, 4), 2.0),
            torch.ones(2, 4) > 0,
            PINHOLE,
            torch.eye(4),
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0])
def test_values_that_are_no_depths_are_named(bad):
    depth = smooth_depth()
    depth[2, 4] = bad
    valid, image = torch.ones(HEIGHT, WIDTH, dtype=torch.bool), torch.rand(3, HEIGHT, WIDTH)
    with pytest.raises(MediaError, match="row 2, column 4"):
        lift_depth(image, depth, valid, PINHOLE, torch.eye(4))
    valid[2, 4] = False
    lifted = lift_depth(image, depth, valid, PINHOLE, torch.eye(4))
    depth[2, 4] = 0
    expected = lift_depth(image, depth, valid, PINHOLE, torch.eye(4))
    assert all(map(torch.equal, lifted, expected))


def test_bad_cameras_are_refused():
    depth, image = torch.full((HEIGHT, WIDTH), 2.0), torch.zeros(3, HEIGHT, WIDTH)
    with pytest.raises(CameraError, match="finite"):
        lift_depth(image, depth, depth > 0, PINHOLE, torch.eye(4) * math.nan)
    with pytest.raises(CameraError, match="inverted"):
        lift_depth(image, depth, depth > 0, torch.zeros(3, 3), torch.eye(4))
