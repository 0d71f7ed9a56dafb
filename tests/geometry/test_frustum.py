"""Laws of frusta, and box overlap against loops."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.geometry.strategies import clips, laws, pinholes
from worldstereo.geometry.frustum import FAR, NEAR, box_iou, frustum_boxes, frustum_corners
from worldstereo.geometry.projection import project_points

HEIGHT, WIDTH = 48, 80
PIXELS = [[0, 0], [WIDTH, 0], [WIDTH, HEIGHT], [0, HEIGHT]]


def slow_iou(box: np.ndarray, other: np.ndarray) -> float:
    """Overlap of one pair of boxes [2, 3]."""
    sides = [min(box[1, i], other[1, i]) - max(box[0, i], other[0, i]) for i in range(3)]
    shared = float(np.prod(sides)) if min(sides) > 0 else 0.0
    volumes = [float(np.prod(each[1] - each[0])) for each in (box, other)]
    return shared / (sum(volumes) - shared + 1e-8)


@laws
@given(clips(1, 4), pinholes(HEIGHT, WIDTH))
def test_corners_project_to_the_image_corners(cameras, intrinsics):
    corners = frustum_corners(cameras, intrinsics.expand(len(cameras), 3, 3), HEIGHT, WIDTH)
    for camera, eight in zip(cameras, corners, strict=True):
        u, v, _ = project_points(eight, camera, intrinsics)
        expected = torch.tensor(PIXELS * 2, dtype=torch.float64)
        torch.testing.assert_close(torch.stack([u, v], dim=-1), expected, atol=1e-6, rtol=0)
        lengths = (eight - torch.linalg.inv(camera)[:3, 3]).norm(dim=-1)
        expected = torch.tensor([NEAR] * 4 + [FAR] * 4, dtype=torch.float64)
        torch.testing.assert_close(lengths, expected)


@laws
@given(clips(2, 6), pinholes(HEIGHT, WIDTH))
def test_a_camera_overlaps_itself_most(cameras, intrinsics):
    boxes = frustum_boxes(cameras, intrinsics.expand(len(cameras), 3, 3), HEIGHT, WIDTH).float()
    overlap = box_iou(boxes, boxes)
    torch.testing.assert_close(overlap.diagonal(), torch.ones(len(cameras)), atol=1e-5, rtol=0)
    assert bool((overlap <= overlap.diagonal()[:, None] + 1e-6).all())
    assert torch.equal(overlap, overlap.T)
    for i in range(len(boxes)):
        for j in range(len(boxes)):
            expected = slow_iou(boxes[i].double().numpy(), boxes[j].double().numpy())
            assert abs(float(overlap[i, j]) - expected) < 1e-5


@laws
@given(st.floats(21, 1000))
def test_boxes_that_do_not_meet_share_nothing(gap):
    cameras = torch.eye(4).repeat(2, 1, 1)
    cameras[1, 0, 3] = gap
    intrinsics = torch.tensor([[60.0, 0, 40], [0, 60, 24], [0, 0, 1]]).expand(2, 3, 3)
    boxes = frustum_boxes(cameras, intrinsics, HEIGHT, WIDTH)
    assert boxes.shape == (2, 2, 3)
    assert box_iou(boxes[:1], boxes[1:]).item() == 0
