"""The point memory: known scenes, the order of commits, what is cleaned away."""

import itertools
import pickle

import numpy as np
import pytest
from pydantic import ValidationError

from tests.reconstruction import box_room
from tests.reconstruction.wall import (
    FOCAL,
    HEIGHT,
    WIDTH,
    wall_cameras,
    wall_clip,
    wall_cloud,
    wall_colors,
)
from worldstereo.depth.stereo import stereo_depths
from worldstereo.errors import CameraError, MediaError
from worldstereo.geometry import trajectories
from worldstereo.reconstruction.fuse import FusionParameters, PointMemory
from worldstereo.types import Cameras, PointCloud

UNALIGNED = FusionParameters(align=False)
PATHS = {
    "view/right": [[0.1 * i, 0, 0] for i in range(4)],
    "view/left": [[-0.1 * i, 0, 0] for i in range(4)],
    "view/up": [[0, -0.1 * i, 0.1 * i] for i in range(4)],
}


def remember(
    memory: PointMemory, name: str, position: int, scale: float = 1.0, seed: int | None = None
) -> None:
    """Add a clip of the wall; with a seed, its depths are noisy."""
    cameras = wall_cameras(PATHS[name])
    frames, depths = wall_clip(cameras)
    if seed is not None:
        depths *= np.random.default_rng(seed).normal(1, 0.01, depths.shape).astype(np.float32)
    memory.add(position, name, frames, cameras, depths * np.float32(scale))


def same(first: PointCloud, second: PointCloud) -> bool:
    return (
        first.points.tobytes() == second.points.tobytes()
        and first.colors.tobytes() == second.colors.tobytes()
    )


def test_a_wall_seen_by_several_cameras_is_one_wall():
    memory = PointMemory(None, UNALIGNED)
    for position, name in enumerate(PATHS):
        remember(memory, name, position)
    cloud = memory.cloud()
    np.testing.assert_allclose(cloud.points[:, 2], 2, atol=1e-5)
    # Colours are means within a voxel of 2 / 30, which is 40 x 2 / 30 levels wide.
    assert np.abs(cloud.colors.astype(int) - wall_colors(cloud.points)).max() <= 2
    assert memory.voxel == pytest.approx(2 / FOCAL)
    places = np.floor(cloud.points.astype(np.float64) / memory.voxel).astype(int)
    assert len(np.unique(places, axis=0)) == len(cloud)
    # About one point for each pixel of one frame, not of twelve, and the edges of the others.
    assert HEIGHT * WIDTH < len(cloud) < 2 * HEIGHT * WIDTH
    assert (memory.clip_count, memory.scales) == (3, dict.fromkeys(PATHS, 1.0))


def test_a_wrong_scale_is_recovered():
    memory = PointMemory(wall_cloud())
    remember(memory, "view/right", 0, scale=1.3)
    remember(memory, "view/left", 1, scale=0.8)
    assert memory.scales["view/right"] == pytest.approx(1 / 1.3, rel=1e-3)
    assert memory.scales["view/left"] == pytest.approx(1 / 0.8, rel=1e-3)
    np.testing.assert_allclose(memory.cloud().points[:, 2], 2, atol=2e-3)


def test_clips_follow_the_first_one_without_a_start_cloud():
    memory = PointMemory()
    remember(memory, "view/right", 1, scale=0.9)
    remember(memory, "view/left", 0)
    assert list(memory.scales) == ["view/left", "view/right"]
    assert memory.scales["view/left"] == 1
    assert memory.scales["view/right"] == pytest.approx(1 / 0.9, rel=5e-3)
    assert memory.alignments["view/right"].reference == "clips"


@pytest.mark.parametrize("start", [None, wall_cloud()])
def test_the_order_of_commits_changes_no_bit(start):
    clouds = []
    for order in itertools.permutations(enumerate(PATHS)):
        memory = PointMemory(start)
        for position, name in order:
            remember(memory, name, position, scale=1 + 0.1 * position, seed=position)
            if position == 1:
                memory.cloud()
        clouds.append(memory.cloud())
    assert len(clouds[0]) > HEIGHT * WIDTH
    assert all(same(cloud, clouds[0]) for cloud in clouds)


def test_clips_at_one_position_are_ordered_by_name():
    clouds = []
    for names in (list(PATHS), list(PATHS)[::-1]):
        memory = PointMemory()
        for name in names:
            remember(memory, name, 0, seed=len(name))
        clouds.append(memory.cloud())
    assert same(*clouds)


def test_a_clip_that_comes_twice_counts_once():
    memory = PointMemory(wall_cloud())
    remember(memory, "view/up", 0, seed=0)
    before = memory.cloud()
    remember(memory, "view/up", 0, seed=0)
    assert memory.clip_count == 1
    assert memory.cloud() is before


def test_a_copy_in_another_process_gives_the_same_bits():
    memory = PointMemory(wall_cloud())
    remember(memory, "view/up", 0, seed=0)
    copy = pickle.loads(pickle.dumps(memory))
    assert same(copy.cloud(), memory.cloud())


def test_callers_may_reuse_their_arrays():
    cameras = wall_cameras(PATHS["view/up"])
    frames, depths = wall_clip(cameras)
    memory = PointMemory(None, UNALIGNED)
    memory.add(0, "view/up", frames, cameras, depths)
    expected = PointMemory(None, UNALIGNED)
    remember(expected, "view/up", 0)
    frames[:], depths[:] = 0, 1
    assert same(memory.cloud(), expected.cloud())


def test_planted_outliers_are_removed():
    cameras = wall_cameras([[0, 0, 0]] * 4)
    frames, depths = wall_clip(cameras)
    random = np.random.default_rng(0)
    start = wall_cloud(step=0.02)
    points = random.uniform(-1.5, 1.5, (200, 3)).astype(np.float32) + np.float32([0, 0, 6])
    planted = PointCloud(points, np.full((200, 3), 7, dtype=np.uint8))
    everything = PointCloud(
        np.concatenate([start.points, planted.points]),
        np.concatenate([start.colors, planted.colors]),
    )
    memory = PointMemory(everything, FusionParameters(align=False, voxel=0.02))
    memory.add(0, "view/still", frames, cameras, depths)
    without = PointMemory(everything, FusionParameters(align=False, voxel=0.02, deviations=1e6))
    without.add(0, "view/still", frames, cameras, depths)
    cleaned, whole = memory.cloud(), without.cloud()
    assert (whole.points[:, 2] > 3).sum() == 200
    assert (cleaned.points[:, 2] > 3).sum() == 0
    assert (cleaned.points[:, 2] < 3).sum() > 0.98 * (whole.points[:, 2] < 3).sum()


def test_points_that_other_frames_look_through_are_removed():
    cameras = wall_cameras([[0.05 * i, 0, 0] for i in range(7)])
    frames, depths = wall_clip(cameras)
    # One frame holds a plate in mid-air that the six others do not see.
    depths[2, 8:16, 10:20] = 1.2
    for tolerance, floats in ((0.05, False), (0.99, True)):
        memory = PointMemory(
            None, FusionParameters(align=False, conflict_tolerance=tolerance, deviations=1e6)
        )
        memory.add(0, "view/plate", frames, cameras, depths)
        depth = memory.cloud().points[:, 2]
        assert bool((depth < 1.8).any()) == floats
        assert (depth > 1.9).sum() > HEIGHT * WIDTH


def test_what_most_frames_see_in_front_of_the_wall_stays():
    cameras = wall_cameras([[0.01 * i, 0, 0] for i in range(7)])
    frames, depths = wall_clip(cameras)
    depths[:6, 6:18, 8:22] = 1.2
    memory = PointMemory(None, UNALIGNED)
    memory.add(0, "view/plate", frames, cameras, depths)
    # 12 x 14 pixels of 0.04 are about 60 voxels of 0.067; their rim is a depth edge.
    assert (memory.cloud().points[:, 2] < 1.3).sum() > 30


def test_the_start_cloud_is_never_judged():
    start = wall_cloud(1.0, 0.05)
    memory = PointMemory(start, UNALIGNED)
    remember(memory, "view/right", 0)
    cloud = memory.cloud()
    assert (cloud.points[:, 2] < 1.5).sum() > 0.9 * len(np.unique(start.points, axis=0)) / 4


def test_holes_and_nonsense_in_depths_are_left_out():
    cameras = wall_cameras(PATHS["view/right"])
    frames, depths = wall_clip(cameras)
    depths[0, ::2] = np.nan
    depths[1, 3:9] = 0
    depths[2, :, ::3] = np.inf
    depths[3] = -1
    memory = PointMemory(wall_cloud())
    memory.add(0, "view/right", frames, cameras, depths)
    cloud = memory.cloud()
    assert len(cloud) > 500
    np.testing.assert_allclose(cloud.points[:, 2], 2, atol=1e-3)


def test_without_points_the_cloud_is_empty():
    memory = PointMemory()
    assert len(memory.cloud()) == 0
    assert (memory.clip_count, memory.scales, memory.voxel) == (0, {}, None)
    cameras = wall_cameras(PATHS["view/right"])
    frames, depths = wall_clip(cameras)
    memory.add(0, "view/right", frames, cameras, 0 * depths)
    cloud = memory.cloud()
    assert cloud.points.shape == cloud.colors.shape == (0, 3)
    assert (memory.clip_count, memory.voxel) == (1, None)


def test_the_start_cloud_alone_is_a_cloud():
    start = wall_cloud()
    shuffled = start[np.random.default_rng(0).permutation(len(start))]
    assert same(PointMemory(start).cloud(), PointMemory(shuffled).cloud())
    fixed = PointMemory(start, FusionParameters(voxel=0.25)).cloud()
    assert len(fixed) < 0.1 * len(PointMemory(start).cloud())
    assert len(PointMemory(start, FusionParameters(deviations=9)).cloud()) == len(start)


def test_the_voxel_size_can_be_given():
    memories = [
        PointMemory(None, FusionParameters(align=False, **size))
        for size in ({"voxel": 0.2}, {"voxel_pixels": 3.0})
    ]
    for memory, voxel in zip(memories, (0.2, 0.2), strict=True):
        remember(memory, "view/right", 0)
        assert memory.voxel == pytest.approx(voxel)


def test_fewer_samples_keep_the_surface():
    cloud = PointMemory(None, FusionParameters(align=False, samples_per_clip=400))
    remember(cloud, "view/right", 0)
    points = cloud.cloud().points
    assert 100 < len(points) <= 400
    np.testing.assert_allclose(points[:, 2], 2, atol=1e-5)


def test_cameras_may_be_stated_for_another_size():
    cameras = wall_cameras(PATHS["view/up"])
    frames, depths = wall_clip(cameras)
    memory = PointMemory(None, UNALIGNED)
    memory.add(0, "view/up", frames, cameras.resized(2 * HEIGHT, 2 * WIDTH), depths)
    expected = PointMemory(None, UNALIGNED)
    remember(expected, "view/up", 0)
    assert same(memory.cloud(), expected.cloud())


def test_a_room_is_rebuilt_from_its_pictures_alone():
    start = box_room.start_pose()
    memory = PointMemory(None, UNALIGNED)
    for position, path in enumerate(
        (trajectories.truck(start, 0.3, 6), trajectories.orbit(start, -30, 0, 6))
    ):
        cameras = box_room.pinhole_cameras(path, 56, 84)
        images = box_room.take(cameras).images
        memory.add(position, f"view/{position}", images, cameras, stereo_depths(images, cameras))
    cloud = memory.cloud()
    apart = box_room.distance_to_surface(cloud.points)
    size = np.linalg.norm(box_room.ROOM[1] - box_room.ROOM[0])
    assert len(cloud) > 5000
    assert np.median(apart) < 0.005 * size
    assert (apart < 0.02 * size).mean() > 0.98


def test_clips_that_do_not_fit_are_refused():
    cameras = wall_cameras(PATHS["view/right"])
    frames, depths = wall_clip(cameras)
    memory = PointMemory()
    with pytest.raises(MediaError, match="no clip"):
        memory.add(0, "view/right", frames[0], cameras, depths)
    with pytest.raises(MediaError, match="not those of the frames"):
        memory.add(0, "view/right", frames, cameras, depths[:, 1:])
    with pytest.raises(CameraError, match="one camera a frame"):
        memory.add(0, "view/right", frames, cameras[:2], depths)
    matrices = cameras.camera_from_world.copy()
    matrices[1, 2, 2] = np.inf
    broken = Cameras(matrices, cameras.intrinsics, HEIGHT, WIDTH)
    with pytest.raises(CameraError, match="frame 1"):
        memory.add(0, "view/right", frames, broken, depths)
    assert memory.clip_count == 0


@pytest.mark.parametrize(
    "wrong", [{"voxel": 0}, {"far": -1}, {"min_cosine": 2}, {"samples_per_clip": 0}, {"typo": 1}]
)
def test_parameters_are_strict(wrong):
    with pytest.raises(ValidationError):
        FusionParameters(**wrong)
