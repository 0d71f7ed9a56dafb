"""What COLMAP's camera and image files must hold before its library is let near them.

pycolmap trusts a file's counts: it reads numbers past the end as they come, takes every second
line of a list without observations for observations, and asks for any amount of memory. So the
records are walked here first. Which camera a record means is left to pycolmap.
Source of the record layouts: colmap.github.io/format.html.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from worldstereo.errors import CameraError
from worldstereo.formats.limits import Limits
from worldstereo.formats.named_cameras import check_count

MODELS = {0: "SIMPLE_PINHOLE", 1: "PINHOLE"}
PARAMETERS = {"SIMPLE_PINHOLE": 3, "PINHOLE": 4}
MAX_BYTES = 1 << 30
# |q| of a stored quaternion may be off 1 by this: what few digits in a text do.
QUATERNION_TOLERANCE = 1e-2


def check_model_files(cameras: Path, images: Path, folder: str, limits: Limits) -> int:
    """Check a model's two files, both binary or both text; how many images they hold.

    Args:
        cameras: cameras.bin or cameras.txt.
        images: images.bin or images.txt.
        folder: how errors call their folder.
        limits: upper bounds.

    Raises:
        CameraError: naming file and record.
    """
    for path in (cameras, images):
        size = path.stat().st_size
        if not 1 <= size <= MAX_BYTES:
            raise CameraError(
                "the file is empty or too large",
                where=f"{folder}/{path.name}",
                got=f"{size} bytes",
                allowed=f"1 to {MAX_BYTES} bytes",
            )
    where = f"{folder}/{cameras.name}", f"{folder}/{images.name}"
    if cameras.suffix == ".bin":
        _check_camera_records(_Records(cameras, where[0]), limits)
        return _check_image_records(_Records(images, where[1]), limits)
    _check_camera_lines(cameras, where[0], limits)
    return _check_image_lines(images, where[1], limits)


class _Records:
    """A binary file that is read front to back; asking past its end is an error."""

    def __init__(self, path: Path, where: str) -> None:
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._at, self.where = 0, where

    def take(self, layout: str, record: str) -> tuple[float, ...]:
        size = struct.calcsize(layout)
        self.skip(size, record)
        return struct.unpack(layout, self._bytes[self._at - size : self._at])

    def skip(self, size: int, record: str) -> None:
        self._at += size
        if self._at > len(self._bytes):
            raise CameraError(
                "the file ends in the middle",
                where=f"{self.where}: {record}",
                got=f"{len(self._bytes)} bytes",
                allowed=f"at least {self._at}, as its counts say",
            )

    def skip_text(self, record: str) -> None:
        start, end = self._at, self._bytes.find(b"\0", self._at)
        self.skip(end + 1 - start if end >= 0 else len(self._bytes), record)
        try:
            self._bytes[start:end].decode()
        except UnicodeDecodeError as problem:
            raise CameraError(
                "a name is no text",
                where=f"{self.where}: {record}",
                got=repr(self._bytes[start:end])[:200],
                allowed="names in UTF-8",
            ) from problem

    def end(self) -> None:
        if self._at != len(self._bytes):
            raise CameraError(
                "the file holds more than its counts say",
                where=self.where,
                got=f"{len(self._bytes)} bytes",
                allowed=f"{self._at}",
            )


def _check_camera_records(records: _Records, limits: Limits) -> None:
    (count,) = records.take("<Q", "the number of cameras")
    check_count(int(count), records.where, limits)
    for index in range(int(count)):
        record = f"camera {index}"
        _, model, _, _ = records.take("<iiQQ", record)
        name = _checked_model(MODELS.get(int(model)), int(model), f"{records.where}: {record}")
        records.skip(8 * PARAMETERS[name], record)
    records.end()


def _check_image_records(records: _Records, limits: Limits) -> int:
    (count,) = records.take("<Q", "the number of images")
    check_count(int(count), records.where, limits)
    for index in range(int(count)):
        record = f"image {index}"
        _, *pose, _ = records.take("<i7di", record)
        _check_quaternion(pose[:4], f"{records.where}: {record}")
        records.skip_text(record)
        (points,) = records.take("<Q", record)
        records.skip(24 * int(points), record)  # x, y, id
    records.end()
    return int(count)


def _lines(path: Path, where: str) -> Iterator[tuple[int, list[str]]]:
    """Number and words of each line; comments left out, empty lines not."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode()
            except UnicodeDecodeError as problem:
                raise CameraError(
                    "the file is no text",
                    where=f"{where}: line {number}",
                    got=str(problem)[:200],
                    allowed="text in UTF-8",
                ) from problem
            if not text.startswith("#"):
                yield number, text.split()


def _check_camera_lines(path: Path, where: str, limits: Limits) -> None:
    count = 0
    for number, words in _lines(path, where):
        if not words:
            continue
        count += 1
        line = f"{where}: line {number}"
        model = words[1] if len(words) > 1 else None
        name = _checked_model(model if model in PARAMETERS else None, model, line)
        if len(words) != 4 + PARAMETERS[name] or _numbers([words[0], *words[2:]]) is None:
            raise CameraError(
                "the line is no camera",
                where=line,
                got=" ".join(words)[:200],
                allowed=f"id {name} width height and {PARAMETERS[name]} parameters",
            )
    check_count(count, where, limits)


def _check_image_lines(path: Path, where: str, limits: Limits) -> int:
    """Two lines an image; COLMAP skips empty lines before the first of them, not the second."""
    count, inside = 0, False
    for number, words in _lines(path, where):
        line = f"{where}: line {number}"
        if inside:
            if len(words) % 3 or _numbers(words) is None:
                raise _no_observations(line, " ".join(words)[:200])
            inside = False
        elif words:
            pose = _numbers(words[:9]) if len(words) == 10 else None
            if pose is None:
                raise CameraError(
                    "the line is no image",
                    where=line,
                    got=" ".join(words)[:200],
                    allowed="id qw qx qy qz tx ty tz camera_id and a name without blanks",
                    fix="names with blanks can be stored in a binary model alone",
                )
            _check_quaternion(pose[1:5], line)
            count, inside = count + 1, True
    if inside:
        raise _no_observations(where, "the end of the file after an image's line")
    check_count(count, where, limits)
    return count


def _no_observations(where: str, got: str) -> CameraError:
    return CameraError(
        "a line of observations is missing or broken",
        where=where,
        got=got,
        allowed="x y id for each observation, or an empty line, after every image",
    )


def _numbers(words: list[str]) -> list[float] | None:
    """The words as numbers; None where one is no finite number."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _checked_model(name: str | None, got: int | str | None, where: str) -> str:
    if name is None:
        raise CameraError(
            "the camera model is no pinhole",
            where=f"{where}: model",
            got=f"model {got}",
            allowed=" or ".join(PARAMETERS),
            fix="undistort the images first, e.g. with colmap image_undistorter",
        )
    return name


def _check_quaternion(quaternion: list[float], where: str) -> None:
    length = math.hypot(*quaternion)
    if not abs(length - 1) <= QUATERNION_TOLERANCE:
        raise CameraError(
            "the rotation is no unit quaternion",
            where=f"{where}: qw qx qy qz",
            got=f"{' '.join(f'{value:g}' for value in quaternion)}, of length {length:.4g}",
            allowed=f"length 1, up to {QUATERNION_TOLERANCE:g}",
        )
