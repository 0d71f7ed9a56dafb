"""Archives for upload tests, honest ones and hostile ones, built in memory."""

import io
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path


def zip_of(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tar_of(files: Mapping[str, bytes], compression: str = "") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{compression}") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def zip_of_folder(folder: Path, top: str = "") -> bytes:
    return zip_of(
        {
            f"{top}{path.relative_to(folder).as_posix()}": path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
    )


def tar_entry(name: str, kind: bytes, target: str = "") -> bytes:
    """A tar with one entry that is no file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, target
        archive.addfile(entry)
    return buffer.getvalue()


def zip_symlink(name: str, target: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(name)
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, target)
    return buffer.getvalue()


def zip_encrypted(name: str) -> bytes:
    """A zip whose entry claims to be encrypted."""
    data = bytearray(zip_of({name: b"secret"}))
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flags_at] |= 1
    return bytes(data)


def zip_wrong_sizes(name: str, content: bytes) -> bytes:
    """A zip whose headers say that the file is empty."""
    data = bytearray(zip_of({name: content}))
    for signature, size_at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = data.index(signature) + size_at
        data[at : at + 4] = bytes(4)
    return bytes(data)


def zip_large_directory(name: str) -> bytes:
    """A zip whose end record announces a directory of 2 GiB."""
    data = bytearray(zip_of({name: b"x"}))
    at = data.rindex(b"PK\x05\x06") + 12
    data[at : at + 4] = (2**31).to_bytes(4, "little")
    return bytes(data)


def tar_large_attributes() -> bytes:
    """A tar whose first entry has 4 MiB of attributes."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 2**22}
    ) as archive:
        archive.addfile(tarfile.TarInfo("image.png"))
    return buffer.getvalue()
