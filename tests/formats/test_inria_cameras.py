"""cameras_inria.json, read by the rules of the programs that open it."""

import json
from pathlib import Path

import numpy as np

from tests.formats.clouds import cameras, cloud, pixels
from worldstereo.formats.inria_cameras import write_inria_cameras
from worldstereo.formats.upright import world_from_cameras
from worldstereo.types import Cameras

NAMES = [f"renders/traj_up/frames/{index:04d}.png" for index in range(4)]


def read_as_viewers_do(file: Path) -> list[tuple[str, Cameras]]:
    """Each entry as a camera: rotation and position are world_from_camera, centre of the image."""
    found = []
    for entry in json.loads(file.read_text()):
        rotation, position = np.array(entry["rotation"]), np.array(entry["position"])
        camera_from_world = np.eye(4)
        camera_from_world[:3, :3] = rotation.T
        camera_from_world[:3, 3] = -rotation.T @ position
        width, height = entry["width"], entry["height"]
        k = np.array([[entry["fx"], 0, width / 2], [0, entry["fy"], height / 2], [0, 0, 1]])
        view = Cameras(camera_from_world[None], k[None], height, width)  # type: ignore[arg-type]
        found.append((entry["img_name"], view))
    return found


def test_points_are_seen_at_the_same_pixels(tmp_path: Path) -> None:
    views, points = cameras(), cloud().points
    write_inria_cameras(tmp_path / "cameras_inria.json", NAMES, views)
    back = read_as_viewers_do(tmp_path / "cameras_inria.json")
    assert [name for name, _ in back] == NAMES
    # The format has no principal point: what ours is off the centre is a shift of the image.
    shift = views.intrinsics[0, :2, 2] - np.array([views.width, views.height]) / 2
    for expected, (_, view) in zip(pixels(points, views), back, strict=True):
        np.testing.assert_allclose(pixels(points, view)[0] + shift, expected, atol=1e-4)


def test_what_an_entry_holds(tmp_path: Path) -> None:
    views = cameras()
    write_inria_cameras(tmp_path / "c.json", NAMES, views)
    entries = json.loads((tmp_path / "c.json").read_text())
    assert [entry["id"] for entry in entries] == [0, 1, 2, 3]
    assert set(entries[2]) == {
        *("id", "img_name", "width", "height", "position", "rotation", "fx", "fy")
    }
    # SuperSplat looks along the third column from the position.
    last = views.camera_from_world[3].astype(np.float64)
    np.testing.assert_allclose(np.array(entries[3]["rotation"])[:, 2], last[2, :3], atol=1e-7)
    np.testing.assert_allclose(entries[3]["position"], [0.3, 0, 0.3], atol=1e-6)


def test_same_cameras_same_bytes(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_inria_cameras(tmp_path / name, NAMES, cameras())
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_the_inverse_of_cameras() -> None:
    views = cameras(7, yaw=150, pitch=60)
    product = world_from_cameras(views) @ views.camera_from_world
    np.testing.assert_allclose(product, np.tile(np.eye(4), (7, 1, 1)), atol=1e-14)
    # Also where the rotation is one to three digits only.
    rough = views.camera_from_world.copy()
    rough[:, :3, :3] *= 1.0005
    rough_views = Cameras(rough, views.intrinsics, views.height, views.width)
    np.testing.assert_allclose(
        world_from_cameras(rough_views) @ rough, np.tile(np.eye(4), (7, 1, 1)), atol=1e-14
    )
