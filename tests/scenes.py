"""Small valid scene folders of each layout, made from seeds: real files, quickly.

The pictures are smooth colours, so that the videos are small; the masks have a hole that grows;
the cameras turn enough for the memory to have something to choose from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldstereo.formats.images import write_png
from worldstereo.formats.video import write_video
from worldstereo.types import Float32, UInt8

SIZE = (128, 192)
NFRAME = 21
PANORAMA = {
    "view0": ("traj2", "traj0", "traj1"),
    "target_door_0": ("traj0", "traj1"),
    "reconstruct_0": ("traj0", "traj1"),
    "wonder_0": ("traj0",),
}


def picture(seed: int, size: tuple[int, int] = SIZE) -> UInt8:
    """[height, width, 3]: smooth colours that depend on the seed."""
    height, width = size
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(size)
    rate, phase = random.uniform(2, 6, (3, 2)), random.uniform(0, 6, 3)
    waves = [np.sin(r[0] * x + r[1] * y + p) for r, p in zip(rate, phase, strict=True)]
    return (127.5 + 110 * np.stack(waves, axis=-1)).astype(np.uint8)


def rotation(yaw: float, pitch: float = 0.0) -> Float32:
    """Rotation part of a world-to-camera matrix; degrees, to the right and up."""
    a, b = np.radians(yaw), np.radians(pitch)
    turn = np.array([[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]])
    return (tilt @ turn).astype(np.float32)


def path(
    nframe: int, *, yaw: float = 30.0, pitch: float = 0.0, start: float = 0.0, step: float = 0.3
) -> Float32:
    """[N, 4, 4] camera_from_world: turns by ``yaw`` and ``pitch`` degrees, moves by ``step``."""
    matrices = np.tile(np.eye(4, dtype=np.float32), (nframe, 1, 1))
    for matrix, s in zip(matrices, np.linspace(0, 1, nframe), strict=True):
        matrix[:3, :3] = rotation(start + yaw * s, pitch * s)
        matrix[:3, 3] = -matrix[:3, :3] @ np.array([step * s, 0, step * s], dtype=np.float32)
    return matrices


def intrinsics(nframe: int, size: tuple[int, int] = SIZE) -> Float32:
    """[N, 3, 3] in pixels of an image of ``size`` (height, width)."""
    height, width = size
    matrix = [[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]]
    return np.tile(np.array(matrix, dtype=np.float32), (nframe, 1, 1))


def write_json(file: Path, content: object) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def write_picture(file: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_png(file, picture(seed, size))


def make_trajectory(
    folder: Path,
    cameras: Float32,
    *,
    seed: int = 0,
    size: tuple[int, int] = SIZE,
    nframe: int = NFRAME,
    caption: str | None = None,
) -> Path:
    """One trajectory folder: camera.json, render.mp4, render_mask.mp4 (and traj_caption.json)."""
    height, width = size
    content = {
        "extrinsic": cameras.tolist(),
        "intrinsic": intrinsics(len(cameras), size).tolist(),
        "width": width,
        "height": height,
        "type": "ignored",
    }
    write_json(folder / "camera.json", content)
    start = picture(seed, size)
    frames = np.stack([np.roll(start, 2 * index, axis=1) for index in range(nframe)])
    masks = np.zeros_like(frames)
    for index in range(nframe):
        hole = (index * width) // (3 * nframe)
        masks[index, :, width - hole :] = 255
        frames[index, :, width - hole :] = 127
    write_video(folder / "render.mp4", frames)
    write_video(folder / "render_mask.mp4", masks, crf=12)
    if caption is not None:
        write_json(folder / "traj_caption.json", {"prompt": caption})
    return folder


def make_reconstruction(
    folder: Path,
    trajectories: Sequence[str] = ("traj_eloop", "traj_up"),
    nframe: int = NFRAME,
    size: tuple[int, int] = SIZE,
) -> Path:
    """image.png, prompt.json, renders/<traj>/...; returns ``folder``."""
    write_picture(folder / "image.png", 0, size)
    write_json(folder / "prompt.json", {"prompt": "a room with smooth colours"})
    for index, name in enumerate(trajectories):
        cameras = path(nframe, yaw=25.0 * (1 + index), pitch=10.0 * index)
        make_trajectory(folder / "renders" / name, cameras, size=size, nframe=nframe)
    return folder


def make_pano_bank(folder: Path, count: int = 6, size: tuple[int, int] = SIZE) -> Path:
    """cameras.json and images/<name>.png, looking around in ``count`` steps."""
    content = {}
    for index in range(count):
        matrix = np.eye(4)
        matrix[:3, :3] = rotation(360 / count * index)
        content[f"{index:04d}"] = {
            "extrinsic": matrix.tolist(),
            "intrinsic": intrinsics(1, size)[0].tolist(),
        }
        write_picture(folder / "images" / f"{index:04d}.png", 100 + index, size)
    write_json(folder / "cameras.json", content)
    return folder


def make_panorama(
    folder: Path,
    views: dict[str, tuple[str, ...]] | None = None,
    bank: int = 6,
    nframe: int = NFRAME,
    size: tuple[int, int] = SIZE,
    *,
    readme: bool = False,
) -> Path:
    """pano_bank and views with trajectories; returns ``folder``.

    Args:
        views: view folder -> its trajectories; default ``PANORAMA``.
        bank: number of start frames.
        readme: the README's form: meta_info.json, and all in render_results.
    """
    inside = folder / "render_results" if readme else folder
    if readme:
        write_json(folder / "meta_info.json", {"scene_type": "panorama"})
    make_pano_bank(inside / "pano_bank", bank, size)
    turn = 0.0
    for number, (view, names) in enumerate((PANORAMA if views is None else views).items()):
        write_picture(inside / view / "start_frame.png", number, size)
        for name in names:
            index = int(name[-1]) if name[-1].isdigit() else 0
            cameras = path(nframe, yaw=60.0 * (1 - index), pitch=15.0 * index, start=turn)
            make_trajectory(
                inside / view / name,
                cameras,
                seed=number,
                size=size,
                nframe=nframe,
                caption=f"{view} {name}",
            )
        turn += 70.0
    return folder


def make_perspective(
    folder: Path,
    views: dict[str, tuple[str, ...]] | None = None,
    nframe: int = NFRAME,
    size: tuple[int, int] = SIZE,
) -> Path:
    """The README's form of one start image: meta_info.json, start_frame.png, render_results."""
    write_json(folder / "meta_info.json", {"scene_type": "perspective"})
    write_picture(folder / "start_frame.png", 0, size)
    views = {"view0": ("traj0", "traj1")} if views is None else views
    for number, (view, names) in enumerate(views.items()):
        for index, name in enumerate(names):
            cameras = path(nframe, yaw=20.0 * (1 + index), start=10.0 * number)
            make_trajectory(
                folder / "render_results" / view / name,
                cameras,
                size=size,
                nframe=nframe,
                caption=f"{view} {name}",
            )
    return folder


def make_single_view(
    folder: Path, cameras: int = 81, size: tuple[int, int] = SIZE, *, depth: bool = True
) -> Path:
    """image.png, prompt.json, camera.json (and depth.npy); returns ``folder``.

    As in the published examples the world's origin is a pivot: camera 0 has t = (0, 0, d).
    """
    write_picture(folder / "image.png", 0, size)
    write_json(
        folder / "prompt.json",
        {"short caption": "short", "medium caption": "medium", "long caption": "a long caption"},
    )
    pivot = np.eye(4, dtype=np.float32)
    pivot[2, 3] = 2.0
    orbit = pivot @ path(cameras, yaw=20.0, step=0.0)
    write_json(
        folder / "camera.json",
        {
            "motion_list": ["ignored", "ignored"],
            "extrinsic": orbit.tolist(),
            "intrinsic": intrinsics(cameras, size).tolist(),
        },
    )
    if depth:
        height, width = size
        rows = np.linspace(3.0, 1.5, height, dtype=np.float32)
        np.save(folder / "depth.npy", np.tile(rows[:, None], (1, width)))
    return folder
