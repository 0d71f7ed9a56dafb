"""What the table of bad scenes is made of: the valid folders, and how a case is added."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.scenes import (
    make_panorama,
    make_perspective,
    make_reconstruction,
    make_single_view,
)
from worldstereo.errors import InputError

SIZE = (32, 48)
Change = Callable[[Path], object]


@dataclass(frozen=True)
class BadScene:
    """A folder to build, and how it must be refused."""

    name: str
    build: Callable[[Path], Path]
    error: type[InputError]
    mentions: tuple[str, ...]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    uploadable: bool = True


CASES: list[BadScene] = []


def case(
    base: Callable[[Path], Path], error: type[InputError], *mentions: str, **options: Any
) -> Callable[[Change], Change]:
    """Add a case to the table: ``base`` builds a valid folder, the function spoils it."""

    def add(change: Change) -> Change:
        def build(tmp_path: Path) -> Path:
            folder = base(tmp_path / "scene")
            change(folder)
            return folder

        CASES.append(BadScene(change.__name__, build, error, mentions, **options))
        return change

    return add


def reconstruction(folder: Path) -> Path:
    return make_reconstruction(folder, ("traj_up",), size=SIZE)


def panorama(folder: Path) -> Path:
    views = {"view0": ("traj0",), "reconstruct_0": ("traj0", "traj1")}
    return make_panorama(folder, views, bank=3, size=SIZE)


def perspective(folder: Path) -> Path:
    return make_perspective(folder, {"view0": ("traj0",)}, size=SIZE)


def single_view(folder: Path) -> Path:
    return make_single_view(folder, cameras=21, size=SIZE)


def nothing(folder: Path) -> Path:
    return folder


UP = "renders/traj_up"
CAMERA = f"{UP}/camera.json"


def edit(file: Path, change: Callable[[Any], object]) -> None:
    """Read a JSON file, change what it holds in place, write it."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def cut(file: Path, share: float = 0.5) -> None:
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
