"""The point renderer against its definition, and its independence of chunks and threads."""

import dataclasses
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.clouds import Cloud, assert_is_slow_render, random_cloud
from tests.geometry.strategies import laws
from worldstereo.errors import CameraError, ParameterError
from worldstereo.geometry.render import PointRender, point_renderer, render_points


def render(cloud: Cloud, **options: float) -> PointRender:
    return render_points(**vars(cloud), **options)


def assert_equal(actual: PointRender, expected: PointRender) -> None:
    for field in dataclasses.fields(PointRender):
        assert torch.equal(getattr(actual, field.name), getattr(expected, field.name)), field.name


@dataclasses.dataclass(frozen=True)
class Size:
    height: int
    width: int


@laws
@given(
    st.integers(0, 10**6),
    st.integers(1, 40),
    st.sampled_from([Size(5, 8), Size(8, 5), Size(6, 6)]),
    st.floats(0.05, 1.5),
    st.integers(1, 12),
)
def test_every_pixel_follows_the_definition(seed, count, size, radius_ndc, points_per_pixel):
    cloud = random_cloud(seed, count, size.height, size.width)
    rendered = render(cloud, radius_ndc=radius_ndc, points_per_pixel=points_per_pixel)
    assert_is_slow_render(rendered, cloud, radius_ndc, points_per_pixel)


def test_crowded_pixels_keep_the_nearest_in_the_order_of_the_list():
    cloud = random_cloud(1, 120, 6, 9)
    for points_per_pixel in (1, 3, 50):
        rendered = render(cloud, radius_ndc=0.9, points_per_pixel=points_per_pixel)
        covered = assert_is_slow_render(rendered, cloud, 0.9, points_per_pixel)
        assert covered > 90


def one_point(points: list[list[float]], colors: list[list[float]]) -> Cloud:
    pinhole = torch.tensor([[[4.0, 0, 2], [0, 4, 2], [0, 0, 1]]])
    return Cloud(torch.tensor(points), torch.tensor(colors), torch.eye(4)[None], pinhole, 4, 4)


def test_of_equal_depths_the_first_in_the_list_is_in_front():
    # All at the centre of pixel (2, 2), which each of them covers wholly.
    red, green = [1.0, 0, 0], [0, 1.0, 0]
    point = [0.125, 0.125, 1.0]
    for colors in ([red, green], [green, red]):
        rendered = render(one_point([point, point], colors), radius_ndc=0.2)
        assert rendered.rgb[0, :, 2, 2].tolist() == colors[0]
    behind = [0.25, 0.25, 2.0]
    rendered = render(one_point([behind, point], [red, green]), radius_ndc=0.2)
    assert rendered.rgb[0, :, 2, 2].tolist() == green
    assert rendered.nearest_z[0, 0, 2, 2] == 1
    assert rendered.hole_mask.sum() == 15


def test_partly_covered_pixels_are_not_filled_up():
    # Half a radius off: the weight is 3/4, the rest stays 0.
    rendered = render(one_point([[0.25, 0.125, 1.0]], [[1.0, 1.0, -1.0]]), radius_ndc=0.5)
    np.testing.assert_allclose(rendered.rgb[0, :, 2, 2], [0.75, 0.75, -0.75], atol=1e-6)


@pytest.mark.parametrize("z", [0.0, -1.0, math.nan, math.inf])
def test_points_that_are_not_in_front_are_not_seen(z):
    rendered = render(one_point([[0.0, 0.0, z]], [[1.0, 1.0, 1.0]]), radius_ndc=1.0)
    assert (rendered.hole_mask == 1).all()
    assert (rendered.nearest_z == -1).all()
    assert (rendered.rgb == 0).all()


def test_points_outside_reach_in_by_their_radius():
    # u = -0.5: the first column's centre is 1 pixel away, the second one's 2 pixels.
    cloud = one_point([[-0.625, 0.125, 1.0]], [[1.0, 1.0, 1.0]])
    assert render(cloud, radius_ndc=0.49).hole_mask.sum() == 16
    rendered = render(cloud, radius_ndc=0.51)
    assert (rendered.hole_mask[0, 0] == 0).nonzero().tolist() == [[2, 0]]


def test_no_points_make_holes():
    cloud = random_cloud(0, 0, 4, 6)
    assert (render(cloud).hole_mask == 1).all()


def test_chunks_frames_at_once_and_threads_do_not_change_a_bit():
    cloud = random_cloud(5, 3000, 40, 60)
    options = {"radius_ndc": 0.11, "points_per_pixel": 7}
    expected = render(cloud, **options)
    assert 0 < expected.hole_mask.mean() < 0.9
    for candidates in (1, 1000, 12345, 10**7):
        assert_equal(render(cloud, **options, candidates_per_chunk=candidates), expected)
    for frames in (1, 2, 100):
        assert_equal(render(cloud, **options, frames_at_once=frames), expected)
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            assert_equal(render(cloud, **options), expected)
    finally:
        torch.set_num_threads(threads)


def test_a_frame_does_not_depend_on_the_others():
    cloud = random_cloud(6, 200, 10, 15)
    both = render(cloud, radius_ndc=0.2)
    for frame in (0, 1):
        one = slice(frame, frame + 1)
        alone = dataclasses.replace(
            cloud,
            camera_from_world=cloud.camera_from_world[one],
            intrinsics=cloud.intrinsics[one],
        )
        rendered = render(alone, radius_ndc=0.2)
        assert torch.equal(rendered.rgb[0], both.rgb[frame])


def test_bad_arguments_are_named():
    cloud = random_cloud(0, 10, 4, 6)
    with pytest.raises(ParameterError, match="radius_ndc"):
        render(cloud, radius_ndc=0)
    with pytest.raises(ParameterError, match="points_per_pixel"):
        render(cloud, points_per_pixel=0)
    cloud.camera_from_world[1, 0, 0] = math.nan
    with pytest.raises(CameraError, match="frame 1"):
        render(cloud)


def test_our_own_renderer_needs_nothing():
    assert point_renderer("torch") is render_points
    assert not any(name.partition(".")[0] == "pytorch3d" for name in sys.modules)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_renders_the_same_twice_and_as_the_cpu_does():
    cloud = random_cloud(5, 3000, 40, 60)
    tensors = {
        name: value.cuda() if isinstance(value, torch.Tensor) else value
        for name, value in vars(cloud).items()
    }
    first, second = (render(Cloud(**tensors), radius_ndc=0.11) for _ in range(2))
    assert_equal(first, second)
    on_cpu = render(cloud, radius_ndc=0.11)
    torch.testing.assert_close(first.rgb.cpu(), on_cpu.rgb, atol=1e-5, rtol=0)
    assert torch.equal(first.hole_mask.cpu(), on_cpu.hole_mask)
