"""A local scene folder as one archive file, ready to be sent.

Owns what goes into the archive and that the same folder always gives the same bytes, so that a
repeated submit is recognised. Whether the folder is a scene is for the server to say.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from worldstereo_client.errors import LayoutError

PNG = b"\x89PNG\r\n\x1a\n"

# Archives carry no times: 1980-01-01 is the earliest that zip can say.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@contextmanager
def open_archive(scene: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Open a scene as an archive: a folder is packed into a temporary file, an archive taken as is.

    The zip is uncompressed (images and videos are compressed already) and holds the folder's files
    in sorted order, without times and owners. Names that begin with a dot are left out. Symbolic
    links are followed inside the folder and refused when they leave it.

    Args:
        scene: a folder, or a zip or tar file (told by content).

    Yields:
        A file name for the upload and the open file, at its start.

    Raises:
        LayoutError: nothing there, neither folder nor archive, an empty folder, a link that leaves
            the folder or leads into itself, or a special file.
    """
    if scene.is_dir():
        with tempfile.TemporaryFile(prefix="worldstereo-upload-") as file:
            write_zip(scene, file)
            file.seek(0)
            yield f"{scene_name(scene)}.zip", file
        return
    if not scene.is_file():
        raise LayoutError("no such scene folder or archive", where=str(scene))
    if not (zipfile.is_zipfile(scene) or tarfile.is_tarfile(scene)):
        raise LayoutError(
            "not a scene",
            where=str(scene),
            got="a file that is no archive",
            allowed="a scene folder, or a zip, tar or tar.gz of one; or a PNG, JPEG or WebP image",
        )
    with scene.open("rb") as file:
        yield scene.name, file


def is_image(scene: Path) -> bool:
    """Whether a file is a PNG, JPEG or WebP image, by its content."""
    if not scene.is_file():
        return False
    with scene.open("rb") as file:
        start = file.read(12)
    return start.startswith((PNG, b"\xff\xd8\xff")) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")


def write_zip(folder: Path, file: IO[bytes]) -> None:
    """Write every file of ``folder`` into an uncompressed zip; equal folders give equal bytes."""
    files = dict(scene_files(folder))
    if not files:
        raise LayoutError("the scene folder is empty", where=str(folder))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            entry.create_system = 3  # Unix, wherever this runs: part of the bytes
            entry.file_size = files[name].stat().st_size  # zipfile chooses zip64 by it
            with files[name].open("rb") as source, archive.open(entry, "w") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def scene_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files of a scene folder: (name in the archive, path)."""
    yield from _walk(folder, folder.resolve(), "", ())


def _walk(
    folder: Path, root: Path, prefix: str, parents: tuple[Path, ...]
) -> Iterator[tuple[str, Path]]:
    parents = (*parents, folder.resolve())
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        if entry.is_symlink():
            _check_link(path, root, parents)
        if entry.is_dir():
            yield from _walk(path, root, f"{prefix}{entry.name}/", parents)
        elif entry.is_file():
            yield f"{prefix}{entry.name}", path
        else:
            raise LayoutError(
                "neither a file nor a folder", where=str(path), fix="remove it from the scene"
            )


def _check_link(path: Path, root: Path, parents: tuple[Path, ...]) -> None:
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise LayoutError("a broken symbolic link", where=str(path), got=str(error)) from error
    if target in parents:
        raise LayoutError(
            "a symbolic link that leads into itself", where=str(path), got=str(target)
        )
    if not target.is_relative_to(root):
        raise LayoutError(
            "a symbolic link leaves the scene folder",
            where=str(path),
            got=str(target),
            fix="copy the file into the scene; what lies outside is never sent",
        )


def scene_name(scene: Path) -> str:
    """A scene's name from its folder or archive, in the characters that the server takes."""
    name = scene.resolve().name
    if not scene.is_dir():
        name = re.sub(r"(\.tar)?\.(zip|tar|gz|tgz|bz2|xz)$", "", name, flags=re.IGNORECASE)
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", name).lstrip("._-")[:128]
    return name or "scene"
