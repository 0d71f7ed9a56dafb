"""Receives the multipart body of a submission, part by part, straight to disk.

Owns the request's format and the limit on its size, which holds while bytes arrive. What is in the
files is archives.py's and the readers'.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from configs.settings import UploadLimits
from deployments.errors import UploadError, UploadTooLarge, ValidationError

_TEXT_PART = "parameters"


@dataclass(frozen=True)
class ReceivedFile:
    """A file part: what the sender called it, where it lies, and its SHA-256."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Upload:
    """A request body that came whole: a ``scene`` archive or an ``image``, never both."""

    scene: ReceivedFile | None
    image: ReceivedFile | None
    depth: ReceivedFile | None
    depth_unit: ReceivedFile | None
    parameters: str


class UploadReceiver:
    """Takes the body in chunks; ``finish`` says what came.

    Args:
        folder: where the file parts are written.
        content_type: header of the request.
        limits: on the body and on the text part.

    Raises:
        ValidationError: the request is not multipart/form-data.
    """

    # Names of the parts that may come: files, and texts.
    file_parts: tuple[str, ...] = ("scene", "image", "depth", "depth_unit")
    text_parts: tuple[str, ...] = (_TEXT_PART,)

    def __init__(self, folder: Path, content_type: str, limits: UploadLimits) -> None:
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise ValidationError(
                "not a form with parts",
                where="Content-Type",
                got=repr(content_type[:200]),
                allowed="multipart/form-data with a boundary",
            )
        self._folder = folder
        self._limits = limits
        self._received = 0
        self._header: tuple[bytearray, bytearray] = (bytearray(), bytearray())
        self._headers: dict[bytes, bytes] = {}
        self._part: _Part | None = None
        self._parts: dict[str, _Part] = {}
        self._ended = False
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": self._write,
            "on_part_end": self._close,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], callbacks)
        except FormParserError as error:
            raise ValidationError(str(error), where="Content-Type") from error

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            UploadTooLarge: the body is larger than the limit.
            UploadError: the body is no multipart form.
            ValidationError: a part is unknown, comes twice, or is too long.
        """
        self._received += len(chunk)
        if self._received > self._limits.max_upload_bytes:
            raise UploadTooLarge(
                "the request body is too large",
                got=f"more than {self._limits.max_upload_bytes} bytes",
                allowed=f"at most {self._limits.max_upload_bytes} bytes",
            )
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise UploadError("broken multipart body", got=str(error)) from error

    def finish(self) -> Upload:
        """What came.

        Raises:
            UploadError: the body ended too early.
            ValidationError: there is no ``scene`` and no ``image``, or both, or the parameters
                are no text; ``depth_unit`` without ``depth``.
        """
        self.check_end()
        if ("scene" in self._parts) == ("image" in self._parts):
            raise ValidationError(
                "one of two parts must come",
                where="scene, image",
                got="both" if "scene" in self._parts else "neither",
                allowed="scene: a zip or tar of a scene folder; or image: a picture to build from",
            )
        if "depth_unit" in self._parts and "depth" not in self._parts:
            raise ValidationError(
                "states the unit of nothing", where="depth_unit", fix="send depth"
            )
        files = {name: self.received(name) for name in self.file_parts}
        return Upload(parameters=self.text(_TEXT_PART) or "", **files)

    def check_end(self) -> None:
        """UploadError where the body ended too early."""
        if not self._ended:
            raise UploadError("the multipart body ended too early")

    def text(self, name: str) -> str | None:
        """A text part, None where it did not come; ValidationError where it is no text."""
        part = self._parts.get(name)
        try:
            return bytes(part.text).decode() if part else None
        except UnicodeDecodeError as error:
            raise ValidationError("not UTF-8", where=name) from error

    def received(self, name: str) -> ReceivedFile | None:
        """A file part, None where it did not come."""
        part = self._parts.get(name)
        return part.received() if part else None

    def close(self) -> None:
        """Close whatever is open; the files stay. Twice is harmless."""
        for part in [*self._parts.values(), *([self._part] if self._part else [])]:
            part.close()

    def _begin(self) -> None:
        self._headers = {}
        self._header = (bytearray(), bytearray())

    def _end_header(self) -> None:
        name, value = self._header
        self._headers[bytes(name).lower()] = bytes(value)
        self._header = (bytearray(), bytearray())

    def _open(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name not in (*self.file_parts, *self.text_parts):
            raise ValidationError(
                "unknown part",
                where=name[:100] or "a part without a name",
                allowed=", ".join((*self.file_parts, *self.text_parts)),
            )
        if name in self._parts:
            raise ValidationError("the part comes twice", where=name)
        file_name = options.get(b"filename", b"").decode("utf-8", "replace")
        path = self._folder / f"{name}.upload" if name in self.file_parts else None
        self._part = self._parts[name] = _Part(name, file_name, path)

    def _write(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(data[start:end])
        if len(self._part.text) > self._limits.max_parameters_bytes:
            raise ValidationError(
                "too long",
                where=self._part.part,
                got=f"more than {self._limits.max_parameters_bytes} bytes",
                allowed=f"at most {self._limits.max_parameters_bytes} bytes",
                fix="thin long lists of cameras: a clip uses a few of them",
            )

    def _close(self) -> None:
        assert self._part is not None
        self._part.close()

    def _end(self) -> None:
        self._ended = True


class _Part:
    """One part: bytes in memory, or a file with its hash."""

    def __init__(self, part: str, name: str, path: Path | None) -> None:
        self.part = part
        self.name = name
        self.text = bytearray()
        self._path = path
        self._file: IO[bytes] | None = path.open("xb") if path else None
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes) -> None:
        if self._file is None:
            self.text.extend(data)
        else:
            self._file.write(data)
            self._sha256.update(data)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def received(self) -> ReceivedFile:
        assert self._path is not None
        # A sender may give a path, of either kind; only its last part is a name.
        name = PurePosixPath(self.name.replace("\\", "/")).name
        return ReceivedFile(name, self._path, self._sha256.hexdigest())
