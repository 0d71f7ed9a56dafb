"""Which pixels of a clip are kept, and where their points lie."""

import numpy as np
import pytest

from tests.reconstruction.wall import FOCAL, HEIGHT, WIDTH, wall_cameras, wall_clip, wall_colors
from worldstereo.reconstruction.clip_depths import ClipDepths, sample_clip, usable_depths
from worldstereo.reconstruction.free_space import voting_frames
from worldstereo.types import Cameras

CENTERS = [[0.1 * i, 0, 0.05 * i] for i in range(5)]


def kept(cameras: Cameras, frames, depths, **changes) -> ClipDepths:
    arguments = {"samples": 10**6, "far": 8.0, "min_cosine": 0.1, "sobel_threshold": 0.35}
    return sample_clip(3, "view/traj", frames, cameras, depths, **{**arguments, **changes})


@pytest.mark.parametrize("samples", [10**6, 700, 100, 1])
def test_every_sample_lies_on_the_surface_with_its_color(samples):
    cameras = wall_cameras(CENTERS)
    clip = kept(cameras, *wall_clip(cameras), samples=samples)
    cloud = clip.cloud((1.0,) * 5)
    assert 0 < len(cloud) == (clip.depths > 0).sum()
    assert clip.depths.size <= max(samples, 5 * WIDTH // HEIGHT)
    np.testing.assert_allclose(cloud.points[:, 2], 2, atol=1e-5)
    # A level may be rounded down on the other side.
    apart = np.abs(wall_colors(cloud.points).astype(int) - cloud.colors)
    assert apart.max() <= 1


def test_frames_sample_different_pixels():
    cameras = wall_cameras([[0, 0, 0]] * 5)
    clip = kept(cameras, *wall_clip(cameras), samples=5 * HEIGHT * WIDTH // 4)
    assert clip.stride == 2
    points = clip.cloud((1.0,) * 5).points.reshape(5, -1, 3)
    assert len(np.unique(points[:4].reshape(-1, 3), axis=0)) == 4 * points.shape[1]
    np.testing.assert_array_equal(points[4], points[0])


def test_a_factor_moves_points_along_their_rays():
    cameras = wall_cameras(CENTERS)
    clip = kept(cameras, *wall_clip(cameras))
    center = np.array(CENTERS[3])
    near, far = clip.points(3, 1.0).points - center, clip.points(3, 1.5).points - center
    np.testing.assert_allclose(far, 1.5 * near, atol=1e-5)


def test_points_are_seen_where_they_were_taken():
    cameras = wall_cameras(CENTERS, yaws=[0, 5, 10, -5, 0])
    clip = kept(cameras, *wall_clip(cameras), samples=5 * HEIGHT * WIDTH // 4)
    points = clip.points(2, 1.0).points
    seen = clip.seen(2, points)
    np.testing.assert_array_equal(seen.index, np.arange(len(points)))
    np.testing.assert_allclose(seen.depth, seen.z, rtol=1e-5)


def test_the_footprint_is_that_of_a_pixel_at_the_median_depth():
    cameras = wall_cameras([[0, 0, 0]])
    frames, depths = wall_clip(cameras)
    assert kept(cameras, frames, depths).footprint == pytest.approx(2 / FOCAL)
    assert kept(cameras, frames, 0 * depths).footprint == 0


def test_what_is_no_depth_is_left_out():
    cameras = wall_cameras([[0, 0, 0]])
    frames, depths = wall_clip(cameras)
    bad = np.zeros(depths.shape, dtype=bool)
    for column, value in ((3, np.nan), (9, np.inf), (15, 0), (21, -2), (27, 100)):
        depths[0, :, column] = value
        bad[0, :, column] = True
    clip = kept(cameras, frames, depths)
    np.testing.assert_array_equal(clip.depths[~bad], depths[~bad])
    assert not clip.depths[bad].any()


def test_depth_edges_are_left_out_although_pixels_are_invalid():
    depth = np.full((20, 30), 1.0, dtype=np.float32)
    depth[:, 15:] = 3.0
    depth[5:9, 3:8] = 0
    pinhole = np.array([[30, 0, 15], [0, 30, 10], [0, 0, 1]], dtype=np.float32)
    usable = usable_depths(depth, pinhole, 0.0, 0.35)
    expected = depth > 0
    expected[:, 14:16] = False
    np.testing.assert_array_equal(usable, expected)


def test_the_noise_of_a_flat_wall_is_no_edge():
    depth = np.random.default_rng(0).normal(2, 0.01, (20, 30)).astype(np.float32)
    pinhole = np.array([[30, 0, 15], [0, 30, 10], [0, 0, 1]], dtype=np.float32)
    assert usable_depths(depth, pinhole, 0.1, 0.35).all()


def test_grazing_surfaces_are_left_out():
    # A floor one unit below the camera: a ray of slope s meets it at s / sqrt(1 + s^2).
    height, width, focal = 40, 20, 40.0
    pinhole = np.array([[focal, 0, 10], [0, focal, 0], [0, 0, 1]], dtype=np.float32)
    slope = (np.arange(height) + 0.5)[:, None] / focal
    depth = np.repeat(1 / slope, width, axis=1).astype(np.float32)
    across = (np.arange(width) + 0.5 - 10) / focal
    cosine = slope / np.sqrt(1 + slope**2 + across**2)
    usable = usable_depths(depth, pinhole, 0.3, 1e-9)
    inner = np.s_[2:-1]
    np.testing.assert_array_equal(usable[inner], (cosine >= 0.3)[inner])
    assert usable_depths(depth, pinhole, 0.0, 1e-9).all()


def test_an_empty_map_has_no_usable_pixel():
    pinhole = np.eye(3, dtype=np.float32)
    assert not usable_depths(np.zeros((4, 5), dtype=np.float32), pinhole, 0.1, 0.35).any()


def test_voting_frames_are_spread_evenly():
    assert voting_frames(1) == [0]
    assert voting_frames(2) == [0, 1]
    assert voting_frames(21) == [0, 3, 7, 10, 13, 17, 20]
