"""A textured box seen from inside: exact pictures and depths of any camera, quickly.

Also as a world and as a scene folder, as ``worldstereo.synthetic`` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from tests.scenes import write_json
from worldstereo.formats.images import write_png
from worldstereo.formats.video import write_video
from worldstereo.geometry.views import render_views
from worldstereo.types import Cameras, Float32, PointCloud, UInt8

SIZE = (96, 144)
LOW, HIGH = np.array([-2.0, -1.2, -2.0]), np.array([2.2, 1.3, 4.0])


def cameras(poses: NDArray[np.float64] | Float32, size: tuple[int, int] = SIZE) -> Cameras:
    """Cameras with a horizontal field of view of about 64 degrees."""
    height, width = size
    k = np.array([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    intrinsics = np.tile(k.astype(np.float32), (len(poses), 1, 1))
    return Cameras(np.asarray(poses, dtype=np.float32), intrinsics, height, width)


def pose(
    yaw: float = 0.0, pitch: float = 0.0, center: tuple[float, ...] = (0, 0, 0)
) -> NDArray[np.float64]:
    """camera_from_world [4, 4]; yaw to the right, pitch up, in degrees."""
    a, b = np.radians([yaw, pitch])
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = tilt @ turn
    matrix[:3, 3] = -matrix[:3, :3] @ np.array(center)
    return matrix


def path(count: int, *, yaw: float = 20.0, move: float = 0.5) -> NDArray[np.float64]:
    """[count, 4, 4]: turns right and moves on a curve, from the identity."""
    s = np.linspace(0, 1, count)
    return np.stack([pose(yaw * t, 0, (move * t, -move * t * t / 2, move * t / 3)) for t in s])


def render(wanted: Cameras, *, samples: int = 2, seed: int = 0) -> tuple[UInt8, Float32]:
    """Pictures [F, H, W, 3] and depths [F, H, W] along z at pixel centres."""
    grids = [
        np.random.default_rng([seed, cells]).uniform(-1, 1, (6, cells, cells, 3))
        for cells in (7, 23, 61)
    ]
    images, depths = [], []
    for matrix, k in zip(wanted.camera_from_world, wanted.intrinsics, strict=True):
        steps = (np.arange(samples) + 0.5) / samples
        shades = [_cast(matrix, k, wanted, x, y, grids)[0] for x in steps for y in steps]
        images.append(np.mean(shades, axis=0).round().astype(np.uint8))
        depths.append(_cast(matrix, k, wanted, 0.5, 0.5, grids)[1])
    return np.stack(images), np.stack(depths).astype(np.float32)


def _depths(wanted: Cameras) -> Float32:
    return render(wanted, samples=1)[1]


def _cast(matrix, k, wanted, x, y, grids):  # type: ignore[no-untyped-def]
    rows, columns = np.indices((wanted.height, wanted.width)).astype(np.float64)
    local = np.stack(
        [(columns + x - k[0, 2]) / k[0, 0], (rows + y - k[1, 2]) / k[1, 1], np.ones_like(rows)], -1
    )
    rotation = matrix[:3, :3].astype(np.float64)
    origin = -rotation.T @ matrix[:3, 3]
    ray = local @ rotation
    ray = np.where(np.abs(ray) < 1e-9, 1e-9, ray)
    away = np.where(ray > 0, (HIGH - origin) / ray, (LOW - origin) / ray)
    axis = away.argmin(axis=-1)
    depth = away.min(axis=-1)  # rays have z = 1 in the camera
    hit = (origin + depth[..., None] * ray - LOW) / (HIGH - LOW)
    side = 2 * axis + (np.take_along_axis(ray, axis[..., None], -1)[..., 0] > 0)
    across = np.where(axis == 0, hit[..., 1], hit[..., 0])
    along = np.where(axis == 2, hit[..., 1], hit[..., 2])
    color = np.tile([175.0, 115.0, 80.0], (*depth.shape, 1))
    for grid, strength in zip(grids, (60, 45, 30), strict=True):
        color += strength * _smooth(grid, side, across, along)
    return np.clip(color, 0, 255), depth


def _smooth(grid, side, across, along):  # type: ignore[no-untyped-def]
    cells = grid.shape[1] - 1
    x, y = (np.clip(part, 0, 1) * cells for part in (across, along))
    i, j = (np.minimum(part.astype(int), cells - 1) for part in (x, y))
    a, b = (x - i)[..., None], (y - j)[..., None]
    return (
        grid[side, i, j] * (1 - a) * (1 - b)
        + grid[side, i + 1, j] * a * (1 - b)
        + grid[side, i, j + 1] * (1 - a) * b
        + grid[side, i + 1, j + 1] * a * b
    )


# The camera that takes the start image is not at the world's origin, nor does it look along z.
START = pose(-10, 4, (-0.3, 0.1, -0.5))
# Trajectories: turn in degrees and way in metres, from the start camera.
PATHS = {"traj_up": (22.0, 0.5), "traj_right": (28.0, 0.7)}


@dataclass(frozen=True)
class BoxWorld:
    """The box with the textures of a seed."""

    seed: int
    kind: str = "room"
    caption: str = "a box with smooth colours"

    def start_camera(self, height: int, width: int) -> Cameras:
        return cameras(START[None], (height, width))

    def render(self, wanted: Cameras) -> SimpleNamespace:
        images, depths = render(wanted, seed=self.seed)
        return SimpleNamespace(images=images, depths=depths)

    def visible_points(self, wanted: Cameras) -> Float32:
        from worldstereo.evaluation.visibility import views_of

        views = views_of(wanted, _depths(wanted))
        every = [view.points(*np.nonzero(view.depth > 0)) for view in views]
        return np.concatenate(every)[::7].astype(np.float32)

    def visible_cloud(self, wanted: Cameras) -> PointCloud:
        points = self.visible_points(wanted)
        return PointCloud(points, np.full(points.shape, 128, dtype=np.uint8))


def write_scene(
    world: BoxWorld, folder: Path, nframe: int = 5, size: tuple[int, int] = SIZE
) -> Path:
    """The world's scene folder, in coordinates in which the start camera is the identity."""
    scene = folder / f"box-{world.seed}"
    start = world.render(world.start_camera(*size))
    scene.mkdir(parents=True)
    write_png(scene / "image.png", start.images[0])
    write_json(scene / "prompt.json", {"prompt": world.caption})
    for name, (yaw, move) in PATHS.items():
        wanted = cameras(path(nframe, yaw=yaw, move=move), size)
        video, holes = render_views(start.images[0], start.depths[0], wanted)
        place = scene / "renders" / name
        camera = {
            "extrinsic": wanted.camera_from_world.tolist(),
            "intrinsic": wanted.intrinsics.tolist(),
            "width": size[1],
            "height": size[0],
        }
        write_json(place / "camera.json", camera)
        write_video(place / "render.mp4", video, 16)
        masks = np.repeat(np.uint8(255) * holes[..., None].astype(np.uint8), 3, axis=-1)
        write_video(place / "render_mask.mp4", masks, 16)
    return scene
