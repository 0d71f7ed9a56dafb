"""Plücker rays against the definition, pixel by pixel."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import clips, laws, pinholes
from worldstereo.errors import CameraError
from worldstereo.geometry.projection import project_points
from worldstereo.geometry.rays import plucker_embedding

HEIGHT, WIDTH = 3, 5


def slow_ray(camera: np.ndarray, intrinsics: np.ndarray, u: int, v: int) -> np.ndarray:
    """[d, o x d] of one pixel."""
    world_from_camera = np.linalg.inv(camera)
    direction = world_from_camera[:3, :3] @ np.linalg.inv(intrinsics) @ [u - 0.5, v + 0.5, 1]
    direction /= np.linalg.norm(direction)
    return np.concatenate([direction, np.cross(world_from_camera[:3, 3], direction)])


@laws
@given(clips(1, 3), pinholes(HEIGHT, WIDTH))
def test_rays_follow_the_definition(cameras, intrinsics):
    embedding = plucker_embedding(cameras, intrinsics.expand(len(cameras), 3, 3), HEIGHT, WIDTH)
    assert embedding.shape == (1, 6, len(cameras), HEIGHT, WIDTH)
    assert embedding.dtype == torch.float32
    for frame, camera in enumerate(cameras.numpy()):
        for v in range(HEIGHT):
            for u in range(WIDTH):
                expected = slow_ray(camera, intrinsics.numpy(), u, v)
                np.testing.assert_allclose(embedding[0, :, frame, v, u], expected, atol=1e-5)


@laws
@given(clips(1, 1), pinholes(HEIGHT, WIDTH), st.floats(1, 20))
def test_points_on_a_ray_project_to_its_pixel(cameras, intrinsics, distance):
    embedding = plucker_embedding(cameras, intrinsics[None], HEIGHT, WIDTH)[0, :, 0].double()
    center = torch.linalg.inv(cameras[0])[:3, 3]
    direction, moment = embedding[:3], embedding[3:]
    assert float((direction * moment).sum(dim=0).abs().max()) < 1e-5
    points = (center[:, None, None] + distance * direction).reshape(3, -1).T
    u, v, _ = project_points(points, cameras[0], intrinsics)
    columns, rows = torch.arange(WIDTH) - 0.5, torch.arange(HEIGHT) + 0.5
    expected = torch.meshgrid(rows, columns, indexing="ij")
    torch.testing.assert_close(u, expected[1].flatten().double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(v, expected[0].flatten().double(), atol=1e-3, rtol=0)


def test_bad_matrices_are_named():
    cameras, intrinsics = torch.eye(4).repeat(3, 1, 1), torch.eye(3).repeat(3, 1, 1)
    intrinsics[1, 0, 0] = float("nan")
    with pytest.raises(CameraError, match="intrinsics, frame 1"):
        plucker_embedding(cameras, intrinsics, 2, 2)
    intrinsics[1] = 0
    with pytest.raises(CameraError, match="intrinsics, frame 1"):
        plucker_embedding(cameras, intrinsics, 2, 2)
