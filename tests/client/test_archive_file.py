"""A zip that arrives gets its name when it is whole and right."""

import io
import zipfile
from pathlib import Path

import pytest
from worldstereo_client.archive_file import ArchiveFile
from worldstereo_client.errors import IntegrityError


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("video.mp4", content)
    return file.getvalue()


def receive(archive: ArchiveFile, content: bytes) -> None:
    with archive.receiving() as write:
        for start in range(0, len(content), 100):
            write(content[start : start + 100])


def test_a_whole_zip_replaces_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "room.zip"
    for content in (b"a" * 1000, b"b" * 500):
        archive = ArchiveFile(path)
        receive(archive, zipped(content))
        assert archive.finish() == path
        assert path.read_bytes() == zipped(content)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("fault", ["cut", "flipped"])
def test_a_damaged_zip_gets_no_name(fault: str, tmp_path: Path) -> None:
    path = tmp_path / "room.zip"
    content = bytearray(zipped(b"a" * 1000))
    if fault == "cut":
        del content[-60:]
    else:
        content[500] ^= 0xFF
    archive = ArchiveFile(path)
    receive(archive, bytes(content))
    with pytest.raises(IntegrityError, match="damaged"):
        archive.finish()
    assert list(tmp_path.iterdir()) == []
