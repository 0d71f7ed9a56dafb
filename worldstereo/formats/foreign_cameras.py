"""Cameras from elsewhere: which format a path holds, told by its content.

Owns the choice; each format is read by its own module. The published camera.json, whose own
reader belongs to the scene layouts, is taken too.
"""

from __future__ import annotations

import os
from pathlib import Path

from worldstereo.errors import CameraError
from worldstereo.formats import camera_npz
from worldstereo.formats.camera_npz import read_camera_npz
from worldstereo.formats.cameras import read_cameras
from worldstereo.formats.colmap import find_colmap, read_colmap
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.named_cameras import (
    NamedCameras,
    Unit,
    camera_file,
    numbered,
    read_json_object,
)
from worldstereo.formats.path_json import read_path_json
from worldstereo.formats.realestate10k import read_realestate10k
from worldstereo.formats.transforms_json import read_transforms

__all__ = ["FORMATS", "NamedCameras", "Unit", "read_foreign_cameras"]

FORMATS = (
    "the folder of a COLMAP model or of a transforms.json; a transforms.json (frames), "
    "a camera path (camera_from_world_opencv) or a camera.json (extrinsic, intrinsic); "
    ".npz (w2c); RealEstate10K text"
)
# The first bytes of an .npz with nothing in it, of an .npy and of a pickle.
_EMPTY_ZIP, _NPY, _PICKLE = b"PK\x05\x06", b"\x93NUMPY", b"\x80"


def read_foreign_cameras(
    path: Path,
    *,
    image_size: tuple[int, int] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> NamedCameras:
    """Read cameras of any of the known formats.

    Args:
        path: a file or a folder; its content tells the format, not its name.
        image_size: (height, width) of the images that the intrinsics are stated for, used
            where the format, or this file, does not say.
        limits: upper bounds.

    Returns:
        The cameras in the file's order, or sorted by name where the format has no order
        (COLMAP, transforms.json); in the file's own world.

    Raises:
        CameraError: nothing there, no known format, or two; or what the format's reader finds
            wrong. It names file, field, what was found and what is allowed.
        MissingDependencyError: the format needs a package that is not installed.
    """
    if os.path.isdir(path):
        return _read_folder(path, image_size, limits)
    files, name = camera_file(path, limits)
    with (files.root / name).open("rb") as file:
        start = file.read(64)
    if start.startswith((camera_npz.MAGIC, _EMPTY_ZIP)):
        return read_camera_npz(path, limits=limits)
    if start.startswith((_NPY, _PICKLE)) or b"\0" in start or not start.strip():
        raise _unknown(name, f"a file that starts with {start[:16]!r}" if start else "no bytes")
    if start.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        return _read_json(path, image_size, limits)
    if start.startswith(b"#"):
        raise _unknown(name, repr(start[:40]), fix="give the folder that a COLMAP model lies in")
    return read_realestate10k(path, image_size=image_size, limits=limits)


def _read_folder(folder: Path, image_size: tuple[int, int] | None, limits: Limits) -> NamedCameras:
    if not os.access(folder, os.R_OK | os.X_OK):
        raise _unknown(str(folder), "a folder that this process may not read")
    name = Path(os.path.realpath(folder)).name
    model, transforms = find_colmap(folder), folder / "transforms.json"
    if model is not None and transforms.is_file():
        raise CameraError(
            "the folder holds cameras in two formats",
            where=name,
            got=f"a COLMAP model in {model.relative_to(folder)} and transforms.json",
            allowed="one of them",
            fix="give the path of the file, or of the model's folder",
        )
    if transforms.is_file():
        return read_transforms(transforms, image_size=image_size, limits=limits)
    place = folder if model is None else model
    where = name if place == folder else f"{name}/{place.relative_to(folder)}"
    return read_colmap(place, limits=limits, name=where)


def _read_json(path: Path, image_size: tuple[int, int] | None, limits: Limits) -> NamedCameras:
    content, name = read_json_object(path, limits)
    if "camera_from_world_opencv" in content:
        return read_path_json(path, limits=limits)
    if "frames" in content:
        return read_transforms(path, image_size=image_size, limits=limits)
    if "extrinsic" not in content and "intrinsic" not in content:
        shown = ", ".join(sorted(content))[:200] or "none"
        raise _unknown(name, f"JSON with the fields {shown}")
    if image_size is None and "height" not in content and "width" not in content:
        raise CameraError(
            "the intrinsics are in pixels of an image size that the file does not state",
            where=f"{name}: height and width",
            got="no such fields",
            allowed="the height and width of the images",
            fix="give the image size",
        )
    files, name = camera_file(path, limits)
    cameras = read_cameras(files, name, image_size=image_size or (1, 1), nframe=1)
    return NamedCameras(numbered(len(cameras)), cameras)


def _unknown(where: str, got: str, fix: str | None = None) -> CameraError:
    return CameraError(
        "no cameras in a known format", where=where, got=got, allowed=FORMATS, fix=fix
    )
