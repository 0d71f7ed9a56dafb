"""Project, unproject and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import clips, laws, pinholes
from worldstereo.geometry.projection import project_points, unproject_pixels


@laws
@given(clips(1, 1), pinholes(40, 60), st.floats(-20, 80), st.floats(-20, 60), st.floats(0.1, 100))
def test_round_trip(cameras, intrinsics, u, v, z):
    pixel = [torch.tensor([value], dtype=torch.float64) for value in (u, v, z)]
    points = unproject_pixels(*pixel, cameras[0], intrinsics)
    for actual, expected in zip(project_points(points, cameras[0], intrinsics), pixel, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-7, rtol=1e-7)


def test_axes_point_right_down_and_forward():
    intrinsics = torch.tensor([[10.0, 0, 8], [0, 10, 6], [0, 0, 1]])
    points = torch.tensor([[0.0, 0, 2], [1, 0, 2], [0, 1, 2], [0, 0, -1]])
    u, v, z = project_points(points, torch.eye(4), intrinsics)
    assert u[:3].tolist() == [8, 13, 8]
    assert v[:3].tolist() == [6, 6, 11]
    assert z.tolist() == [2, 2, 2, -1]
