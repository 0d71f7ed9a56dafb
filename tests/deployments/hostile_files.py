"""Files that lie about what they are: images, videos, arrays and archives, built in memory."""

import io
import struct
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.deployments import archive_files as make
from worldstereo.formats.video import write_video


def image(kind: str = "PNG", size: tuple[int, int] = (64, 48), **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (90, 120, 40)).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A PNG that claims a size and has hardly any data; ``extra`` chunks come before it."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def png_text_bomb() -> bytes:
    """A PNG whose comment unfolds to 64 MiB."""
    return png(64, 48, (b"zTXt", b"a\0\0" + zlib.compress(bytes(2**26), 9)))


def jpeg(width: int, height: int) -> bytes:
    """A JPEG whose frame header claims a size."""
    data = bytearray(image("JPEG"))
    at = data.index(b"\xff\xc0") + 5
    struct.pack_into(">HH", data, at, height, width)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """A WebP whose extended header claims a canvas."""
    data = bytearray(image("WEBP", lossless=True))
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    chunk = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas
    body = b"WEBP" + chunk + bytes(data[12:])
    return b"RIFF" + struct.pack("<I", len(body)) + body


def video(frames: int = 21, size: tuple[int, int] = (32, 48)) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, np.zeros((frames, *size, 3), np.uint8))
        return path.read_bytes()


def changed_box(data: bytes, box: bytes, at: int, value: bytes) -> bytes:
    """An MP4 with other bytes in a box, ``at`` bytes after its name."""
    changed = bytearray(data)
    begin = changed.index(box) + 4 + at
    changed[begin : begin + len(value)] = value
    return bytes(changed)


def video_of_size(width: int, height: int) -> bytes:
    """An MP4 whose sample description claims a size."""
    return changed_box(video(), b"avc1", 24, struct.pack(">HH", width, height))


def video_of_frames(count: int) -> bytes:
    """An MP4 whose table of samples claims a count."""
    return changed_box(video(), b"stsz", 8, struct.pack(">I", count))


def video_of_seconds(seconds: int) -> bytes:
    """An MP4 whose frames claim to last as long together."""
    data = video()
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    for_each = min(seconds * scale // 21, 2**31 - 1)
    return changed_box(data, b"stts", 12, struct.pack(">I", for_each))


def npy(header: str, content: bytes = b"") -> bytes:
    """A .npy with a header of its own, version 2."""
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + content


def npy_of(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def npz_of(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def zip_bomb_of_one(copies: int) -> bytes:
    """A zip whose entries all are the same bytes of it, each unfolding to 900 KB."""
    content = make.zip_of({"a": bytes(900_000)})
    end = content.rindex(b"PK\x05\x06")
    (size, at) = struct.unpack_from("<II", content, end + 12)
    entry = content[at : at + size]
    named = b"".join(
        entry[:28] + struct.pack("<H", len(name)) + entry[30:46] + name + entry[47:]
        for name in (str(i).encode() for i in range(copies))
    )
    counts = struct.pack("<HH", copies, copies) + struct.pack("<II", len(named), at)
    return content[:at] + named + b"PK\x05\x06\0\0\0\0" + counts + b"\0\0"


def zip_of_zips(depth: int) -> bytes:
    content = bytes(900_000)
    for _ in range(depth):
        content = make.zip_of({"image.png": content})
    return content


def zip_nul_name() -> bytes:
    """A zip whose entry's name has a NUL, where some readers stop."""
    data = make.zip_of({"image.pngXevil": b"x"})
    return data.replace(b"image.pngXevil", b"image.png\0evil")


def zip_unix_kind(kind: int) -> bytes:
    """A zip whose entry says that it is a device, a pipe or a socket."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("image.png")
        entry.external_attr = (kind | 0o666) << 16
        archive.writestr(entry, b"x")
    return buffer.getvalue()


def tar_pax_path(path: str) -> bytes:
    """A tar whose extended header renames its entry."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        entry = tarfile.TarInfo("image.png")
        entry.pax_headers = {"path": path}
        archive.addfile(entry)
    return buffer.getvalue()


def tar_long_link(name: str) -> bytes:
    """A tar with a name that GNU's extension stores ahead of the entry."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


def tar_of_size(size: bytes) -> bytes:
    """A tar whose header claims a size, its checksum right."""
    data = bytearray(make.tar_of({"image.png": b"x"}))
    data[124:136] = size.ljust(12, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = f"{sum(data[:512]):06o}".encode() + b"\0 "
    return bytes(data)
