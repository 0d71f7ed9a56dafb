"""RealEstate10K camera files: text, one camera a line.

The first line is the video's URL (it may be absent); every other line is
``timestamp fx fy cx cy 0 0`` and 12 numbers, the rows of the 3x4 world-to-camera matrix with
OpenCV axes. fx and cx are fractions of the image's width, fy and cy of its height, so that a
reader must be told the size. The unit is arbitrary (structure from motion).
Source: the data set's own description, google.github.io/realestate10k.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.atomic import atomic_write_text
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.named_cameras import (
    LARGEST,
    Float64,
    NamedCameras,
    camera_file,
    check_count,
    named_cameras,
    pinhole,
)
from worldstereo.types import Cameras

NUMBERS = 19
LINE = "timestamp fx fy cx cy 0 0 and 12 numbers of the 3x4 world-to-camera matrix"
# Microseconds between frames at 16 frames a second, for cameras that have no timestamps.
FRAME_MICROSECONDS = 62_500


def read_realestate10k(
    path: Path, *, image_size: tuple[int, int] | None = None, limits: Limits = DEFAULT_LIMITS
) -> NamedCameras:
    """Read a RealEstate10K file.

    Args:
        path: the file.
        image_size: (height, width) of the images; without it nothing can be read.
        limits: upper bounds.

    Returns:
        The cameras in the file's order, named by their timestamps, of no stated unit.

    Raises:
        CameraError: naming file and line.
    """
    files, name = camera_file(path, limits)
    try:
        lines = (files.root / name).read_bytes().decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as problem:
        raise _no_such_file(name, "bytes that are no UTF-8 text") from problem
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    if rows and len(rows[0][1]) == 1 and not _is_number(rows[0][1][0]):
        rows = rows[1:]  # the URL
    elif rows and not _is_number(rows[0][1][0]):
        raise _no_such_file(f"{name}: line {rows[0][0]}", repr(" ".join(rows[0][1])[:100]))
    check_count(len(rows), name, limits)
    if image_size is None:
        raise CameraError(
            "the intrinsics are fractions of an image size that the file does not state",
            where=name,
            got="no image size",
            allowed="the height and width of the images",
            fix="give the image size",
        )
    numbers = np.stack([_numbers(words, f"{name}: line {number}") for number, words in rows])
    height, width = image_size
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3] = numbers[:, 7:].reshape(-1, 3, 4)
    size = np.array([width, height, width, height])
    return named_cameras(
        [words[0] for _, words in rows],
        poses,
        np.stack([pinhole(*row) for row in numbers[:, 1:5] * size]),
        image_size,
        poses=f"{name}: matrices",
        focal=f"{name}: fx fy cx cy",
        limits=limits,
    )


def write_realestate10k(
    path: Path, cameras: Cameras, *, timestamps: Sequence[int] | None = None, url: str = ""
) -> None:
    """Write a RealEstate10K file, whole or not at all.

    Args:
        path: the file.
        cameras: N cameras without skew.
        timestamps: microseconds of each; default: 16 frames a second from 0.
        url: the first line; empty: a line that says there is none.

    Raises:
        ParameterError: the url has blanks, or could be taken for a number.
    """
    url = url or "none"
    if len(url.split()) != 1 or _is_number(url):
        raise ParameterError(
            "this cannot be the first line", where="url", got=repr(url)[:200], allowed="one word"
        )
    if timestamps is None:
        timestamps = range(0, FRAME_MICROSECONDS * len(cameras), FRAME_MICROSECONDS)
    matrices = cameras.camera_from_world.astype(np.float64)[:, :3].reshape(-1, 12)
    k = cameras.intrinsics.astype(np.float64)
    size = np.array([cameras.width, cameras.height, cameras.width, cameras.height])
    focal = np.stack([k[:, 0, 0], k[:, 1, 1], k[:, 0, 2], k[:, 1, 2]], axis=1) / size
    lines = [url]
    for timestamp, first, matrix in zip(timestamps, focal, matrices, strict=True):
        words = [repr(float(number)) for number in [*first, *matrix]]
        lines.append(" ".join([str(int(timestamp)), *words[:4], "0", "0", *words[4:]]))
    atomic_write_text(path, "\n".join(lines) + "\n")


def _no_such_file(where: str, got: str) -> CameraError:
    return CameraError(
        "no RealEstate10K camera file",
        where=where,
        got=got,
        allowed=f"a URL in the first line, or none; then lines of {LINE}",
    )


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _numbers(words: list[str], where: str) -> Float64:
    wrong = [word for word in words if not _is_number(word)]
    if wrong or len(words) != NUMBERS:
        raise CameraError(
            "the line is no camera",
            where=where,
            got=f"{wrong[0]!r} among the numbers"[:200] if wrong else f"{len(words)} numbers",
            allowed=f"{NUMBERS} numbers: {LINE}",
        )
    numbers = np.array([float(word) for word in words])
    infinite = np.flatnonzero(~(np.abs(numbers) <= LARGEST))
    if len(infinite):
        raise CameraError(
            "a number is not finite",
            where=where,
            got=words[infinite[0]],
            allowed="finite numbers of 32-bit range",
        )
    if numbers[5] or numbers[6]:
        raise CameraError(
            "the camera has lens distortion",
            where=f"{where}: fields 6 and 7",
            got=f"{words[5]} {words[6]}",
            allowed="0 0, a pinhole camera",
            fix="undistort the images first",
        )
    return numbers
