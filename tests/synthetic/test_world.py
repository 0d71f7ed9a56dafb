"""Synthetic worlds: exact, reproducible, varied, and open to walk around in."""

import functools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from worldstereo.errors import ParameterError
from worldstereo.geometry.camera_path import CameraPath
from worldstereo.geometry.projection import project_points, unproject_pixels
from worldstereo.synthetic import SyntheticWorld, make_world
from worldstereo.synthetic.palette import SOFT, STRONG, WOODS
from worldstereo.synthetic.paths import KEPT
from worldstereo.synthetic.scene_folder import path_cameras
from worldstereo.synthetic.world import KINDS, Kind
from worldstereo.types import Cameras, Float32

SIZE = (32, 48)
PATHS = ["traj_eloop", "traj_up", "traj_right", "traj_left"]
SEEDS = range(20)


@functools.cache
def world(seed: int, kind: Kind) -> SyntheticWorld:
    return make_world(seed, kind)


def unprojected(depth: Float32, cameras: Cameras) -> NDArray[np.float64]:
    """[H * W, 3] of a view (N = 1) in the world."""
    v, u = np.indices(depth.shape).reshape(2, -1) + 0.5
    points = unproject_pixels(
        torch.from_numpy(u),
        torch.from_numpy(v),
        torch.from_numpy(depth).flatten(),
        torch.from_numpy(cameras.camera_from_world[0]),
        torch.from_numpy(cameras.intrinsics[0]),
    )
    return points.numpy()


@pytest.mark.parametrize("kind", KINDS)
def test_every_seed_makes_an_open_scene(kind: Kind) -> None:
    pictures, captions = [], set()
    for seed in SEEDS:
        made = world(seed, kind)
        camera = made.start_camera(*SIZE)
        assert np.array_equal(camera.camera_from_world[0], np.eye(4))
        across = np.degrees(2 * np.arctan(SIZE[1] / 2 / camera.intrinsics[0, 0, 0]))
        assert 60 <= across <= 75
        views = made.render(camera, samples=1)
        assert np.isfinite(views.depths).all()
        # Open: nothing near, little that is close, and not a wall of one distance.
        assert views.depths.min() > 0.8
        assert np.median(views.depths) > 1.5
        assert np.percentile(views.depths, 90) > 1.2 * np.percentile(views.depths, 10)
        assert 0.4 < views.images.mean() / 255 < 0.65
        assert views.images.std() > 20
        assert made.clearance(np.zeros((1, 3)))[0] > KEPT
        assert list(made.paths(5)) == PATHS
        pictures.append(views.images[0].astype(float))
        captions.add(made.caption)
    assert len(captions) == len(SEEDS)
    differences = [
        np.abs(one - other).mean() for i, one in enumerate(pictures) for other in pictures[:i]
    ]
    assert min(differences) > 8


def test_the_seed_chooses_the_kind() -> None:
    kinds = {make_world(seed).kind for seed in range(8)}
    assert kinds == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_same_bytes(kind: Kind) -> None:
    first, again = world(3, kind), make_world(3, kind)
    assert first.caption == again.caption
    camera = first.start_camera(*SIZE)
    views = first.render(camera)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 if threads == 1 else 1)
        other = again.render(again.start_camera(*SIZE))
        clouds = [made.cloud(500, seed=2) for made in (first, again)]
    finally:
        torch.set_num_threads(threads)
    assert views.images.tobytes() == other.images.tobytes()
    assert views.depths.tobytes() == other.depths.tobytes()
    assert clouds[0].points.tobytes() == clouds[1].points.tobytes()
    assert clouds[0].colors.tobytes() == clouds[1].colors.tobytes()


def test_chunks_of_frames_and_rows_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = world(1, "room")
    cameras = path_cameras(made, made.paths(4)["traj_left"], SIZE)
    together = made.render(cameras)
    monkeypatch.setattr("worldstereo.synthetic.raycast.CPU_RAYS", 1000)
    apart = made.render(cameras)
    assert np.array_equal(together.images, apart.images)
    assert np.array_equal(together.depths, apart.depths)
    one = made.render(cameras[[2]])
    assert np.array_equal(one.images[0], together.images[2])


@pytest.mark.parametrize("kind", KINDS)
def test_depth_lies_on_surfaces(kind: Kind) -> None:
    made = world(5, kind)
    cameras = path_cameras(made, made.paths(3)["traj_right"], SIZE)
    views = made.render(cameras, samples=1)
    for number in range(3):
        points = unprojected(views.depths[number], cameras[[number]])
        assert np.abs(made.clearance(points)).max() < 1e-4
        # And half way the rays are free.
        center = made.paths(3)["traj_right"].centers[number]
        assert made.clearance((points + center) / 2).min() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_two_cameras_agree(kind: Kind) -> None:
    """What one camera sees has, in another, the depth and the colour that it sees there."""
    made = world(2, kind)
    size = (64, 96)
    cameras = path_cameras(made, made.paths(5)["traj_left"], size)[[0, 1]]
    views = made.render(cameras, samples=3)
    points = unprojected(views.depths[0], cameras[[0]])
    u, v, z = project_points(
        torch.from_numpy(points),
        torch.from_numpy(cameras.camera_from_world[1]),
        torch.from_numpy(cameras.intrinsics[1]),
    )
    column, row = u.floor().long().numpy(), v.floor().long().numpy()
    inside = (column >= 0) & (column < size[1]) & (row >= 0) & (row < size[0])
    inside &= z.numpy() > 0
    assert inside.mean() > 0.6
    seen = views.depths[1][row[inside], column[inside]]
    same = np.abs(seen - z.numpy()[inside]) < 0.03 * seen
    assert same.mean() > 0.8
    first = views.images[0].reshape(-1, 3)[inside][same].astype(float)
    second = views.images[1][row[inside], column[inside]][same].astype(float)
    assert np.median(np.abs(first - second)) < 6
    assert np.corrcoef(first.ravel(), second.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_paths_keep_clear_and_see_something_new(kind: Kind) -> None:
    for seed in range(4):
        made = world(seed, kind)
        paths: dict[str, CameraPath] = made.paths(21)
        for name, path in paths.items():
            assert len(path) == 21
            assert np.allclose(path.camera_from_world[0], np.eye(4), atol=1e-6), name
            assert made.clearance(path.centers).min() >= KEPT - 1e-3
            assert np.linalg.norm(path.centers, axis=-1).max() > 0.3
        right, left = paths["traj_right"].centers[-1], paths["traj_left"].centers[-1]
        assert right[0] > 0.3
        assert left[0] < -0.3
        assert paths["traj_up"].centers[-1, 1] < -0.2


@pytest.mark.parametrize("kind", KINDS)
def test_cloud_points_lie_on_free_surfaces(kind: Kind) -> None:
    made = world(4, kind)
    cloud = made.cloud(3000)
    assert len(cloud) == 3000
    assert np.abs(made.clearance(cloud.points.astype(np.float64))).max() < 1e-4
    assert np.linalg.norm(cloud.points, axis=-1).max() <= made.layout.reach + 1e-3
    assert len(np.unique(cloud.colors, axis=0)) > 200
    assert not np.array_equal(cloud.points, made.cloud(3000, seed=1).points)


def test_a_cloud_is_spread_evenly() -> None:
    """Ceiling and floor of a room have one area: what stands on the floor covers some of it."""
    made = world(0, "room")
    points = made.cloud(6000).points
    shell = made.layout.pieces[0].parts
    area = 4 * shell[1].half[0] * shell[1].half[2]
    top = np.abs(points[:, 1] - points[:, 1].min()) < 1e-3
    walls = shell[2].half, shell[4].half
    inside = 2 * area + 8 * (walls[0][0] * walls[0][1] + walls[1][1] * walls[1][2])
    assert area / inside / 3 < top.mean() < area / inside


@pytest.mark.parametrize("kind", KINDS)
def test_a_cloud_has_the_colours_of_the_pictures(kind: Kind) -> None:
    made = world(6, kind)
    camera = made.start_camera(64, 96)
    views = made.render(camera)
    cloud = made.cloud(4000)
    u, v, z = project_points(
        torch.from_numpy(cloud.points),
        torch.from_numpy(camera.camera_from_world[0]),
        torch.from_numpy(camera.intrinsics[0]),
    )
    column, row = u.floor().long().numpy(), v.floor().long().numpy()
    seen = (z.numpy() > 0) & (column >= 0) & (column < 96) & (row >= 0) & (row < 64)
    near = views.depths[0][row[seen], column[seen]]
    seen[seen] = np.abs(near - z.numpy()[seen]) < 0.02 * near
    assert seen.sum() > 200
    pictured = views.images[0][row[seen], column[seen]].astype(float)
    assert np.median(np.abs(pictured - cloud.colors[seen])) < 15
    assert np.corrcoef(pictured.ravel(), cloud.colors[seen].ravel())[0, 1] > 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_the_visible_cloud_is_what_cameras_see(kind: Kind) -> None:
    made = world(0, kind)
    cameras = path_cameras(made, made.paths(3)["traj_up"], SIZE)
    cloud = made.visible_cloud(cameras)
    views = made.render(cameras)
    distance = [
        np.linalg.norm(unprojected(views.depths[n], cameras[[n]]), axis=-1) for n in range(3)
    ]
    assert len(cloud) == (np.concatenate(distance) <= made.layout.reach).sum()
    assert len(cloud) > 0.5 * views.depths.size
    np.testing.assert_array_equal(made.visible_points(cameras), cloud.points)
    assert np.abs(made.clearance(cloud.points.astype(np.float64))).max() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_captions_name_things_and_colours(kind: Kind) -> None:
    words = {*STRONG, *SOFT, *WOODS}
    for seed in SEEDS:
        caption = world(seed, kind).caption
        assert caption.endswith(".")
        assert caption.count(".") <= 3
        assert any(word in caption for word in words), caption
        assert not any(f" a {vowel}" in caption for vowel in "aeio"), caption
        shown = [piece.phrase for piece in world(seed, kind).layout.pieces if piece.phrase]
        named = [p for p in shown if p.split(" ", 1)[1] in caption]
        assert len(named) >= 3, caption


def test_what_is_not_seen_is_not_named() -> None:
    made = world(0, "room")
    owners = np.repeat(
        np.arange(len(made.layout.pieces)), [len(piece.parts) for piece in made.layout.pieces]
    )
    seen = {made.layout.pieces[n].phrase for n in np.unique(owners[made.start_parts])}
    for piece in made.layout.pieces:
        if piece.phrase and piece.phrase not in seen:
            assert piece.phrase.split(" ", 1)[1] not in made.caption


def test_more_samples_smooth_edges() -> None:
    made = world(0, "objects")
    camera = made.start_camera(*SIZE)
    coarse, fine, finest = (made.render(camera, samples=n).images.astype(float) for n in (1, 3, 6))
    assert np.abs(fine - finest).mean() < np.abs(coarse - finest).mean()


def test_wrong_arguments() -> None:
    with pytest.raises(ParameterError, match="seed"):
        make_world(-1)
    with pytest.raises(ParameterError, match="kind"):
        make_world(0, "street")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match="samples"):
        world(0, "room").render(world(0, "room").start_camera(*SIZE), samples=0)
