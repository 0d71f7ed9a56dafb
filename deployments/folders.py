"""Where a scene's files lie below ``data_dir``, which every part of the service must see.

::

    data_dir/
      uploads/<random>/            a request body while it is received and checked
      scenes/<id>/input/<name>/    the scene's folder as it was sent, or as it was built
      scenes/<id>/source/<file>    the image that a scene is built from
      scenes/<id>/depth/<file>     the depth map that came beside it, and a .json with its unit
      scenes/<id>/output/          the results; what is here is what clients can fetch
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SceneFolder:
    """The files of one scene, stored or about to be."""

    root: Path

    @property
    def input(self) -> Path:
        """Holds one folder, named as the scene."""
        return self.root / "input"

    @property
    def depth(self) -> Path:
        """Holds at most one map, and the .json that states its unit."""
        return self.root / "depth"

    @property
    def output(self) -> Path:
        """The result folder; made by whoever writes the first result."""
        return self.root / "output"

    @property
    def deleted(self) -> Path:
        """A file that says that the scene is being deleted."""
        return self.root / ".deleted"

    @property
    def source(self) -> Path:
        """Holds at most one file."""
        return self.root / "source"

    def image_file(self) -> Path | None:
        """The image that the scene is built from, if it is."""
        return _only_entry(self.source) if self.source.is_dir() else None

    def depth_file(self) -> Path | None:
        """The depth map, if one came."""
        return _only_entry(self.depth, beside=".json") if self.depth.is_dir() else None


@dataclass(frozen=True)
class SceneFolders:
    """All files of the service."""

    root: Path

    @property
    def service(self) -> str:
        """A short name of the service that these files are of."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:8]

    def scene(self, scene_id: str) -> SceneFolder:
        """The folder of a stored scene."""
        return SceneFolder(self.root / "scenes" / scene_id)

    def stored(self) -> list[SceneFolder]:
        """The folders of all scenes, also of those that nobody knows any more."""
        parent = self.root / "scenes"
        found = sorted(parent.iterdir()) if parent.is_dir() else []
        return [SceneFolder(path) for path in found if path.is_dir()]

    def uploads(self) -> list[Path]:
        """The folders of all requests whose bodies came."""
        parent = self.root / "uploads"
        return sorted(parent.iterdir()) if parent.is_dir() else []

    def new_upload(self) -> SceneFolder:
        """A fresh folder for one request, on the file system that scenes are on."""
        folder = self.root / "uploads" / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return SceneFolder(folder)


def _only_entry(folder: Path, beside: str | None = None) -> Path:
    entries = [path for path in folder.iterdir() if path.suffix != beside]
    assert len(entries) == 1, f"{folder} holds {len(entries)} entries"
    return entries[0]
