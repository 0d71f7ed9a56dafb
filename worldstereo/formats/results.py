"""Results out, and back in: a clip's folder, whole or not at all.

Owns the files of a generated clip. What is written first has a temporary name, is flushed to
disk, and is renamed: a reader never sees half a file.

A clip's folder::

    video.mp4           H.264, to look at
    frames/%04d.png     lossless; these feed the memory
    cameras.json        camera_from_world_opencv, intrinsics, width, height
    references.json     the memory frames that it was generated from
    generation.json     how it was generated (seed, steps, model, ...); when told
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from worldstereo.errors import LayoutError, MediaError
from worldstereo.formats.atomic import flush, flush_tree, temporary_sibling
from worldstereo.formats.images import read_image, write_png
from worldstereo.formats.manifest import SCHEMA_VERSION, to_json
from worldstereo.formats.video import FPS, write_video
from worldstereo.types import Cameras, Float32, References, UInt8

AXES = "OpenCV: x right, y down, z forward"
VIDEO, FRAMES, CAMERAS, REFERENCES, GENERATION = (
    "video.mp4",
    "frames",
    "cameras.json",
    "references.json",
    "generation.json",
)


class CameraFile(BaseModel):
    """cameras.json of a result: float32 values written so that they read back exactly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    axes: str = AXES
    width: int = Field(gt=0, description="pixels that the intrinsics are stated for")
    height: int = Field(gt=0)
    camera_from_world_opencv: list[list[list[float]]] = Field(description="N x 4 x 4")
    intrinsics: list[list[list[float]]] = Field(description="N x 3 x 3, pixels")


class Reference(BaseModel):
    """One entry of references.json: a bank frame, and the first target that uses it, less 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    ref_index: int


@dataclass(frozen=True, eq=False)
class TrajectoryResult:
    """A clip's folder, read back.

    Attributes:
        frames: [F, height, width, 3] uint8.
        cameras: F cameras at the size of the frames.
        references: the memory frames used, in order of first use.
        generation: what the writer said about how it was made.
    """

    frames: UInt8
    cameras: Cameras
    references: tuple[Reference, ...] = ()
    generation: dict[str, Any] = field(default_factory=dict)


def write_trajectory(
    folder: Path,
    frames: UInt8,
    cameras: Cameras,
    references: References | Sequence[Reference] | None,
    generation: Mapping[str, Any] | None = None,
) -> bool:
    """Write a clip's folder; it appears by one rename.

    Args:
        folder: where it shall be; parents are made.
        frames: [F, height, width, 3] uint8.
        cameras: F cameras at the size of the frames.
        references: the memory frames used; None: none were.
        generation: facts about how it was made, JSON values.

    Returns:
        True when this call wrote it; False when the folder was there before, which is then left
        as it is.
    """
    assert len(frames) == len(cameras), (frames.shape, len(cameras))
    assert frames.shape[1:3] == (cameras.height, cameras.width), (frames.shape, cameras)
    if folder.exists():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(folder)
    try:
        (temporary / FRAMES).mkdir(parents=True)
        for index, frame in enumerate(frames):
            write_png(frame_path(temporary, index), frame)
        write_video(temporary / VIDEO, frames, FPS)
        (temporary / CAMERAS).write_text(camera_file(cameras))
        (temporary / REFERENCES).write_text(_reference_file(references))
        if generation is not None:
            (temporary / GENERATION).write_text(to_json(dict(generation)))
        flush_tree(temporary)
        try:
            temporary.rename(folder)
        except OSError:
            if folder.exists():  # another process was first
                return False
            raise
        flush(folder.parent)
        flush(folder.parent.parent)  # the view's folder may be new
        return True
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def frame_path(folder: Path, index: int) -> Path:
    """The lossless frame ``index`` of a clip's folder."""
    return folder / FRAMES / f"{index:04d}.png"


def camera_file(cameras: Cameras) -> str:
    """The text of cameras.json."""
    content = CameraFile(
        width=cameras.width,
        height=cameras.height,
        camera_from_world_opencv=cameras.camera_from_world.astype(np.float64).tolist(),
        intrinsics=cameras.intrinsics.astype(np.float64).tolist(),
    )
    return to_json(content.model_dump())


def _reference_file(references: References | Sequence[Reference] | None) -> str:
    if isinstance(references, References):
        pairs = zip(references.ids, references.ref_index, strict=True)
        references = [Reference(id=frame, ref_index=index) for frame, index in pairs]
    entries = [reference.model_dump() for reference in references or ()]
    return to_json({"schema_version": SCHEMA_VERSION, "references": entries})


def read_trajectory(folder: Path) -> TrajectoryResult:
    """Read a clip's folder back.

    Raises:
        LayoutError: a file is missing or not what ``write_trajectory`` writes.
        MediaError: a frame cannot be decoded or is of another size.
    """
    cameras = read_camera_file(folder)
    frames = np.stack([read_frame(folder, index) for index in range(len(cameras))])
    if frames.shape[1:3] != (cameras.height, cameras.width):
        raise MediaError(
            "frames and cameras are not of one size",
            where=str(folder / FRAMES),
            got=f"{frames.shape[2]}x{frames.shape[1]} pixels",
            allowed=f"{cameras.width}x{cameras.height}, as {CAMERAS} says",
        )
    content = _read_json(folder / REFERENCES)
    try:
        references = tuple(Reference.model_validate(entry) for entry in content["references"])
    except (KeyError, TypeError, ValidationError) as problem:
        raise _not_ours(folder / REFERENCES, problem) from problem
    generation = _read_json(folder / GENERATION) if (folder / GENERATION).exists() else {}
    return TrajectoryResult(frames, cameras, references, generation)


def read_camera_file(folder: Path) -> Cameras:
    """The cameras of a clip's folder; LayoutError when its cameras.json is not ours."""
    path = folder / CAMERAS
    try:
        content = CameraFile.model_validate(_read_json(path))
        n = len(content.camera_from_world_opencv)
        camera_from_world = _array(content.camera_from_world_opencv, (n, 4, 4))
        intrinsics = _array(content.intrinsics, (n, 3, 3))
    except ValueError as problem:
        if isinstance(problem, LayoutError):
            raise
        raise _not_ours(path, problem) from problem
    return Cameras(camera_from_world, intrinsics, content.height, content.width)


def read_frame(folder: Path, index: int) -> UInt8:
    """One lossless frame of a clip's folder; LayoutError when it is missing."""
    path = frame_path(folder, index)
    if not path.is_file():
        raise LayoutError("a frame is missing", where=str(path), got="no such file")
    return read_image(path)


def _array(values: list[list[list[float]]], shape: tuple[int, ...]) -> Float32:
    array = np.array(values, dtype=np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"an array of shape {array.shape}, {shape} is needed, finite")
    return array


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError as problem:
        raise LayoutError(
            "a file of a result is missing", where=str(path), got=str(problem.strerror)
        ) from problem
    except ValueError as problem:
        raise _not_ours(path, problem) from problem
    if not isinstance(content, dict):
        raise _not_ours(path, TypeError("no object"))
    return content


def _not_ours(path: Path, problem: Exception) -> LayoutError:
    return LayoutError(
        "a file of a result does not read as it was written",
        where=str(path),
        got=f"{type(problem).__name__}: {str(problem)[:200]}",
        fix="remove the trajectory's folder to have it generated again",
    )
