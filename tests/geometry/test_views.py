"""What an image with depth shows of other views."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.scenes import intrinsics, path, picture
from worldstereo.errors import MediaError, MissingDependencyError
from worldstereo.formats.images import resize_bicubic
from worldstereo.geometry.lift import lift_depth
from worldstereo.geometry.render import render_points
from worldstereo.geometry.views import lift_view, lifting_size, render_cloud, render_views
from worldstereo.types import Cameras

SIZE = (256, 384)
WORKING = (64, 96)


def cameras(frames: int = 4, step: float = 0.3) -> Cameras:
    return Cameras(path(frames, yaw=10, step=step), intrinsics(frames, SIZE), *SIZE).resized(
        *WORKING
    )


def test_it_is_lifting_and_rendering() -> None:
    """The readable twin: a map that is lifted at its own size, pixel by pixel."""
    image, depth = picture(1, SIZE), np.full(SIZE, 3.0, dtype=np.float32)
    depth[:40, 100:200] = 0
    wanted = cameras()
    video, holes = render_views(image, depth, wanted)
    assert lifting_size(SIZE, WORKING) == SIZE
    points, colors = lift_depth(
        torch.tensor(image).permute(2, 0, 1) / 127.5 - 1,
        torch.tensor(depth),
        torch.tensor(depth > 0),
        torch.tensor(wanted.resized(*SIZE).intrinsics[0]),
        torch.eye(4),
    )
    for frame in range(1, 4):
        rendered = render_points(
            points,
            colors,
            torch.tensor(wanted.camera_from_world[[frame]]),
            torch.tensor(wanted.intrinsics[[frame]]),
            *WORKING,
        )
        expected = np.round((rendered.rgb[0].permute(1, 2, 0).numpy() + 1) * 127.5)
        np.testing.assert_array_equal(video[frame], expected.astype(np.uint8))
        np.testing.assert_array_equal(holes[frame], rendered.hole_mask[0, 0].numpy() > 0.5)


def test_frame_0_is_the_image_without_holes() -> None:
    image, depth = picture(1, SIZE), np.zeros(SIZE, dtype=np.float32)
    depth[100:150, 100:300] = 2.0
    video, holes = render_views(image, depth, cameras())
    np.testing.assert_array_equal(video[0], resize_bicubic(image, WORKING))
    assert not holes[0].any()
    assert holes[1].mean() > 0.5
    assert (video.dtype, holes.dtype) == (np.uint8, np.bool_)


def test_a_wall_moves_by_focal_over_depth_times_step() -> None:
    """0.5 to the right at depth 3 with a focal length of 76.8 pixels: 12.8 pixels to the left."""
    moved = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    moved[1, 0, 3] = -0.5
    views = Cameras(moved, intrinsics(2, WORKING), *WORKING)
    image, depth = picture(4, SIZE), np.full((64, 96), 3.0, dtype=np.float32)
    video, holes = render_views(image, depth, views)
    assert holes[1, :, -11:].all()
    assert not holes[1, :, :80].any()
    shifted = video[1, 2:-2, 2:80].astype(float) - video[0, 2:-2, 15:93]
    assert np.abs(shifted).mean() < 6
    unmoved = video[1, 2:-2, 2:80].astype(float) - video[0, 2:-2, 2:80]
    assert np.abs(unmoved).mean() > 3 * np.abs(shifted).mean()


def test_points_render_from_any_camera_where_the_image_was_taken_from() -> None:
    image, depth = picture(2, SIZE), np.full(SIZE, 2.5, dtype=np.float32)
    wanted = cameras(3)
    points, colors = lift_view(image, depth, wanted[[0]])
    video, holes = render_cloud(points, colors, wanted)
    np.testing.assert_array_equal(video[1:], render_views(image, depth, wanted)[0][1:])
    assert not holes[0].any()
    start = resize_bicubic(image, WORKING).astype(float)
    # Disks of several pixels' colours, blended front to back over grey.
    assert np.abs(video[0] - start).mean() < 5


def test_what_cannot_be_rendered() -> None:
    image, empty = picture(1, SIZE), np.zeros(SIZE, dtype=np.float32)
    with pytest.raises(MediaError, match="too few points"):
        render_views(image, empty, cameras())
    with pytest.raises(MissingDependencyError, match="pytorch3d"):
        render_views(image, empty, cameras(), renderer="pytorch3d")
