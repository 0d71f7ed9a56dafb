"""Unpacks an uploaded zip, tar or tar.gz into an empty folder, trusting nothing in it.

Nothing is written outside the folder: absolute paths, ``..``, links and devices are refused, and
so is whatever exceeds the limits, which are checked while bytes come out, not by what the archive
says of itself.
"""

from __future__ import annotations

import gzip
import re
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from configs.settings import MIB, UploadLimits
from deployments.errors import UploadError, UploadTooLarge

_CHUNK = MIB
_BLOCK = 512  # of a tar file
_TAR_MAGIC_AT = 257

# Names, links and attributes that a tar file stores ahead of an entry, bytes.
_MAX_TAR_EXTRA = MIB

# Of one entry in a zip's directory, on average, with its name and extra fields, bytes.
_ZIP_ENTRY_BYTES = 512

_MAX_DEPTH = 16
_MAX_NAME_BYTES = 255

# Names that open a device instead of a file on Windows, whatever follows the dot.
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)", re.IGNORECASE)

# What some systems put into archives beside the files.
_JUNK = re.compile(r"^(__MACOSX|\.DS_Store|Thumbs\.db|desktop\.ini|\._.*)$")


def unpack(archive: Path, folder: Path, limits: UploadLimits) -> Path:
    """Unpack an archive.

    Args:
        archive: the file; its content decides what it is, not its name.
        folder: an empty folder.
        limits: on bytes and files.

    Returns:
        The scene's folder: the one top folder when all files are under one, else ``folder``.

    Raises:
        UploadError: the archive is broken, of another kind, empty, or holds something forbidden.
        UploadTooLarge: it exceeds a limit.
    """
    target = _Target(folder, limits)
    try:
        with archive.open("rb") as file:
            head = file.read(_BLOCK)
            file.seek(0)
            if head.startswith(b"PK"):
                _unpack_zip(file, target)
            elif head.startswith(b"\x1f\x8b"):
                plain = archive.with_suffix(".plain")
                try:
                    _decompress(file, plain, limits)
                    with plain.open("rb") as tar:
                        _unpack_tar(tar, target)
                finally:
                    plain.unlink(missing_ok=True)
            elif head[_TAR_MAGIC_AT:].startswith(b"ustar"):
                _unpack_tar(file, target)
            else:
                raise UploadError("not an archive", where="scene", allowed="zip, tar or tar.gz")
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        struct.error,
        NotImplementedError,
    ) as error:
        raise UploadError("the archive is broken", where="scene", got=str(error)) from error
    entries = list(folder.iterdir())
    if not entries:
        raise UploadError("no files in the archive", where="scene")
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else folder


class _Target:
    """The folder that is filled, and what has gone into it."""

    def __init__(self, folder: Path, limits: UploadLimits) -> None:
        self._folder = folder
        self._limits = limits
        self._bytes = 0
        self._entries = 0
        self._names: set[str] = set()

    @property
    def most_directory_bytes(self) -> int:
        """How large a zip's directory may be before it is looked into."""
        return self._limits.max_files * _ZIP_ENTRY_BYTES

    def count_entry(self) -> None:
        """Refuse an archive of too many entries, folders included."""
        self._entries += 1
        if self._entries > self._limits.max_files:
            raise UploadTooLarge(
                "too many files", where="scene", allowed=f"at most {self._limits.max_files}"
            )

    def write(self, path: PurePosixPath, source: IO[bytes]) -> None:
        """Write one file, below the folder."""
        self.count_entry()
        # Names that differ by case or by how accents are stored are one file on other systems.
        alike = unicodedata.normalize("NFC", str(path)).casefold()
        if alike in self._names:
            raise UploadError("two entries of one name", where=str(path))
        self._names.add(alike)
        target = self._folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise UploadError("two entries of one name", where=str(path)) from error
        written = 0
        with file:
            while chunk := source.read(_CHUNK):
                written += len(chunk)
                self._bytes += len(chunk)
                self._check(path, written)
                file.write(chunk)

    def _check(self, path: PurePosixPath, written: int) -> None:
        if written > self._limits.max_file_bytes:
            raise UploadTooLarge(
                "file too large",
                where=str(path),
                allowed=f"at most {self._limits.max_file_bytes} bytes",
            )
        if self._bytes > self._limits.max_extracted_bytes:
            raise UploadTooLarge(
                "the archive's files are too large together",
                where="scene",
                allowed=f"at most {self._limits.max_extracted_bytes} bytes",
            )


def _safe_path(name: str) -> PurePosixPath | None:
    """The entry's path below the folder; None for what is to be left out."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    forbidden = (
        path.is_absolute()
        or ".." in parts
        or len(parts) > _MAX_DEPTH
        or any(len(part.encode("utf-8", "surrogateescape")) > _MAX_NAME_BYTES for part in parts)
        # Drive letters, backslashes, devices and control characters mean other things elsewhere.
        or any(part[-1] in ". " or _DEVICE.match(part) for part in parts)
        or any(char in '\\:*?"<>|' or not char.isprintable() for char in name)
    )
    if forbidden:
        raise UploadError(
            "forbidden path in the archive",
            where="scene",
            got=repr(name[:200]),
            allowed="relative paths without .., backslashes, colons, names of devices or control "
            "characters",
        )
    return PurePosixPath(*parts) if parts and not any(map(_JUNK.match, parts)) else None


def _unpack_zip(file: IO[bytes], target: _Target) -> None:
    _refuse_large_directory(file, target)
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            # As it is stored: zipfile ends the other one at a NUL.
            path = _safe_path(entry.orig_filename)
            kind = stat.S_IFMT(entry.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise UploadError("neither file nor folder", where=entry.filename)
            if entry.flag_bits & 1:
                raise UploadError("encrypted", where=entry.filename)
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UploadError(
                    "unknown compression", where=entry.filename, allowed="stored or deflated"
                )
            if entry.is_dir() or path is None:
                target.count_entry()
                continue
            with archive.open(entry) as source:
                target.write(path, source)


def _refuse_large_directory(file: IO[bytes], target: _Target) -> None:
    """zipfile reads the whole directory at once, so its size is looked at first."""
    size = file.seek(0, 2)
    tail_at = max(0, size - 65_557)  # the end record with the longest comment
    file.seek(tail_at)
    tail = file.read()
    file.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) < at + 22:
        raise UploadError("the zip has no directory: it may have been cut off", where="scene")
    (directory_bytes,) = struct.unpack_from("<I", tail, at + 12)
    # A locator in front points to a record with 64-bit sizes that count instead; no scene is
    # large enough to need one.
    has_locator = tail[max(0, at - 20) : at].startswith(b"PK\x06\x07")
    if has_locator or directory_bytes > target.most_directory_bytes:
        raise UploadTooLarge("too many files", where="scene", got="a directory too large to read")


def _decompress(file: IO[bytes], plain: Path, limits: UploadLimits) -> None:
    most = limits.max_extracted_bytes + limits.max_files * 4 * _BLOCK
    written = 0
    with gzip.GzipFile(fileobj=file) as source, plain.open("xb") as out:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > most:
                raise UploadTooLarge(
                    "the archive's files are too large together",
                    where="scene",
                    allowed=f"at most {limits.max_extracted_bytes} bytes",
                )
            out.write(chunk)


def _unpack_tar(file: IO[bytes], target: _Target) -> None:
    _refuse_large_extras(file, target)
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for entry in archive:
            path = _safe_path(entry.name)
            if not (entry.isreg() or entry.isdir()) or entry.issparse():
                raise UploadError(
                    "neither file nor folder",
                    where=entry.name,
                    allowed="no links, devices or sparse files",
                )
            source = archive.extractfile(entry) if entry.isreg() and path else None
            if source is None or path is None:
                target.count_entry()
                continue
            with source:
                target.write(path, source)


def _refuse_large_extras(file: IO[bytes], target: _Target) -> None:
    """tarfile keeps long names and attributes in memory, so their sizes are looked at first."""
    for kind, size in _tar_headers(file):
        if size < 0:
            # tarfile would go back by it, and read the same entry for ever.
            raise UploadError("an entry's size is below zero", where="scene", got=str(size))
        if kind in b"xgLK" and size > _MAX_TAR_EXTRA:
            raise UploadTooLarge("an entry's attributes are too large", where="scene")
    file.seek(0)


def _tar_headers(file: IO[bytes]) -> Iterator[tuple[bytes, int]]:
    """(type, size) of each header in the file, until the first that is none."""
    end = file.seek(0, 2)
    at = 0
    while at + _BLOCK <= end:
        file.seek(at)
        header = file.read(_BLOCK)
        field = header[124:136]
        try:
            # Octal text or, with the highest bit set, a binary number.
            size = (
                int.from_bytes(field[1:]) - (256**11 if field[0] == 0xFF else 0)
                if field[0] & 0x80
                else int(field.strip(b" \0") or b"0", 8)
            )
        except ValueError:
            return
        yield header[156:157], size
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
