"""What the table of bad camera files is made of: valid files, and how a case is added."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.formats.rigid_cameras import some_cameras
from worldstereo.formats.camera_npz import write_camera_npz
from worldstereo.formats.colmap import write_colmap
from worldstereo.formats.named_cameras import NamedCameras
from worldstereo.formats.path_json import write_path_json
from worldstereo.formats.realestate10k import write_realestate10k
from worldstereo.formats.results import camera_file
from worldstereo.formats.transforms_json import write_transforms
from worldstereo.types import Cameras

SIZE = (96, 160)
COUNT = 5


def cameras() -> Cameras:
    return some_cameras(7, COUNT)


def names() -> tuple[str, ...]:
    return tuple(f"{index}.png" for index in range(COUNT))


def colmap(folder: Path) -> Path:
    write_colmap(folder / "model", names(), cameras(), None)
    return folder / "model"


def colmap_text(folder: Path) -> Path:
    write_colmap(folder / "model", names(), cameras(), None, text=True)
    return folder / "model"


def colmap_without_rigs(folder: Path) -> Path:
    for model in (colmap, colmap_text):
        place = model(folder)
        for part in ("rigs", "frames", "points3D"):
            for suffix in ("bin", "txt"):
                (place / f"{part}.{suffix}").unlink(missing_ok=True)
    return place


def colmap_project(folder: Path) -> Path:
    write_colmap(folder / "project" / "sparse" / "0", names(), cameras(), None)
    (folder / "project" / "images").mkdir()
    return folder / "project"


def transforms(folder: Path) -> Path:
    write_transforms(folder / "cameras.dat", names(), cameras())
    return folder / "cameras.dat"


def transforms_folder(folder: Path) -> Path:
    write_transforms(folder / "scene" / "transforms.json", names(), cameras())
    return folder / "scene"


def realestate(folder: Path) -> Path:
    write_realestate10k(folder / "clip.json", cameras())
    return folder / "clip.json"


def npz(folder: Path) -> Path:
    write_camera_npz(folder / "trajectory.npz", cameras())
    return folder / "trajectory.npz"


def path(folder: Path) -> Path:
    write_path_json(folder / "path.json", NamedCameras(names(), cameras(), "metric"))
    return folder / "path.json"


def result(folder: Path) -> Path:
    (folder / "cameras.json").write_text(camera_file(cameras()))
    return folder / "cameras.json"


def published(folder: Path) -> Path:
    content = {
        "extrinsic": cameras().camera_from_world.astype(float).tolist(),
        "intrinsic": cameras().intrinsics.astype(float).tolist(),
        "motion_list": ["never read"],
    }
    (folder / "camera.json").write_text(json.dumps(content))
    return folder / "camera.json"


def published_with_size(folder: Path) -> Path:
    edit(published(folder), lambda content: content.update(width=160, height=96))
    return folder / "camera.json"


@dataclass(frozen=True)
class BadFile:
    """A file to spoil, and what its refusal must mention."""

    make: Callable[[Path], Path]
    spoil: Callable[[Path], object]
    mentions: tuple[str, ...]


CASES: dict[str, BadFile] = {}
Spoil = Callable[[Path], object]


def case(make: Callable[[Path], Path], *mentions: str) -> Callable[[Spoil], Spoil]:
    def add(spoil: Spoil) -> Spoil:
        CASES[spoil.__name__] = BadFile(make, spoil, mentions)
        return spoil

    return add


def nothing(folder: Path) -> Path:
    return folder / "cameras"


def edit(file: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def replace(file: Path, old: str, new: str, count: int = 1) -> None:
    text = file.read_text()
    assert old in text, text
    file.write_text(text.replace(old, new, count))


def patch(file: Path, at: int, data: bytes) -> None:
    content = bytearray(file.read_bytes())
    content[at : at + len(data)] = data
    file.write_bytes(content)


def cut(file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
