"""Files of a scene's result folder, as clients see them: names, kinds, hashes.

Owns what may be fetched: finished files below the output folder, by their relative path. Who
writes them, and that they appear whole, is the engine's part.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

from worldstereo_client.schemas import Artefact

from deployments.errors import ArtefactNotFound
from worldstereo.errors import LayoutError
from worldstereo.formats.manifest import MANIFEST, ManifestFile, read_manifest, sha256_of_seen

Kind = Literal["manifest", "video", "frame", "cameras", "references", "plan", "file"]

_SCENE_KINDS: dict[str, Kind] = {MANIFEST: "manifest", "plan.json": "plan"}
_CLIP_KINDS: dict[str, Kind] = {"cameras.json": "cameras", "references.json": "references"}
# Folders of a scene's result that lie beside those of its views.
_BESIDE_VIEWS = ("start_frames", "blender", "depth", "world_mirror_data")


def list_artefacts(output: Path, scene_url: str) -> list[Artefact]:
    """All finished files, sorted by name.

    Args:
        output: the scene's result folder; it may not exist yet.
        scene_url: path of the scene's resource.
    """
    hashes = _manifest_hashes(output)
    return [
        _describe(output, path, scene_url, hashes.get(path.relative_to(output).as_posix()))
        for path in sorted(_files(output))
    ]


def listed_artefacts(files: Iterable[ManifestFile], scene_url: str) -> list[Artefact]:
    """Files that lie in a blob store, as its index names them; sorted by name."""
    by_name = sorted(files, key=lambda file: file.name)
    return [_artefact(file.name, file.bytes, file.sha256, scene_url) for file in by_name]


def finished_files(output: Path) -> list[tuple[str, Path]]:
    """Name and place of every finished file, sorted by name, the manifest last."""
    files = [(path.relative_to(output).as_posix(), path) for path in _files(output)]
    return in_archive_order(files)


def in_archive_order(files: Iterable[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Names and places of files, sorted by name, the manifest last."""
    return sorted(files, key=lambda file: (file[0] == MANIFEST, file[0]))


def find_artefact(output: Path, name: str, scene_url: str) -> tuple[Path, Artefact]:
    """One finished file and its description.

    Args:
        output: the scene's result folder.
        name: path below it, as in the list.
        scene_url: path of the scene's resource.

    Raises:
        ArtefactNotFound: there is no such file, or it is not finished.
    """
    path = _finished_file(output, name)
    if path is None:
        raise ArtefactNotFound("no such file, or not yet", where=name[:200])
    return path, _describe(output, path, scene_url, None)


def _finished_file(output: Path, name: str) -> Path | None:
    parts = PurePosixPath(name).parts
    if not parts or any(part.startswith((".", "/")) for part in parts):
        return None
    path = output.joinpath(*parts)
    try:
        # A link anywhere on the way would lead to another place than it says.
        found = path.is_file() and path.resolve() == output.resolve().joinpath(*parts)
    except (OSError, ValueError):  # a name that no file can have
        return None
    return path if found else None


def _files(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.is_file():
            yield path


def _describe(output: Path, path: Path, scene_url: str, sha256: str | None) -> Artefact:
    name = path.relative_to(output).as_posix()
    return _artefact(name, path.stat().st_size, sha256 or sha256_of_seen(path), scene_url)


def _artefact(name: str, size: int, sha256: str, scene_url: str) -> Artefact:
    return Artefact(
        name=name,
        kind=_kind(name),
        media_type=mimetypes.guess_type(name)[0] or "application/octet-stream",
        bytes=size,
        sha256=sha256,
        url=f"{scene_url}/artefacts/{quote(name)}",
    )


def _kind(name: str) -> Kind:
    """The kind of a file, by its path in the result folder: ``<view>/<trajectory>/...``."""
    *folders, file = name.split("/")
    if not folders:
        return _SCENE_KINDS.get(file, "file")
    if folders[0] in _BESIDE_VIEWS:
        return "file"
    if len(folders) == 2:
        return "video" if file.endswith(".mp4") else _CLIP_KINDS.get(file, "file")
    return "frame" if folders[2:] == ["frames"] and file.endswith(".png") else "file"


def _manifest_hashes(output: Path) -> dict[str, str]:
    try:
        _, files = read_manifest(output)
    except LayoutError:  # it comes last, so there may be none yet
        return {}
    return {file.name: file.sha256 for file in files}
