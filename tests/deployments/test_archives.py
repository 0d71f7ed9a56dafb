"""Unpacking: honest archives come out whole, hostile ones are refused and leave nothing outside."""

import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.settings import UploadLimits
from deployments.archives import unpack
from deployments.errors import UploadError, UploadTooLarge
from tests.deployments import archive_files as make

LIMITS = UploadLimits(max_extracted_bytes=5000, max_file_bytes=3000, max_files=6)
FILES = {"image.png": b"picture", "renders/traj_up/camera.json": b"{}"}


def unpacked(data: bytes, folder: Path, limits: UploadLimits = LIMITS) -> Path:
    archive, target = folder / "scene.upload", folder / "unpacked"
    archive.write_bytes(data)
    target.mkdir()
    return unpack(archive, target, limits)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("top", ["", "kitchen/", "./kitchen/"])
@pytest.mark.parametrize(
    "pack",
    [make.zip_of, make.tar_of, lambda files: make.tar_of(files, "gz")],
    ids=["zip", "tar", "tar.gz"],
)
def test_an_honest_archive_comes_out_whole(
    pack: Callable[[dict[str, bytes]], bytes], top: str, tmp_path: Path
) -> None:
    scene = unpacked(pack({f"{top}{name}": content for name, content in FILES.items()}), tmp_path)
    assert contents(scene) == FILES
    assert scene.name == ("kitchen" if top else "unpacked")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scene.upload", "unpacked"]


def test_what_systems_add_is_left_out(tmp_path: Path) -> None:
    junk = {"__MACOSX/kitchen/._image.png": b"", "kitchen/.DS_Store": b"", "kitchen/._a": b""}
    files = {f"kitchen/{name}": content for name, content in FILES.items()}
    scene = unpacked(make.zip_of(files | junk), tmp_path)
    assert scene.name == "kitchen"
    assert contents(scene) == FILES


HOSTILE: dict[str, tuple[bytes, type[Exception]]] = {
    "not an archive": (b"hello" * 200, UploadError),
    "nothing": (b"", UploadError),
    "cut zip": (make.zip_of(FILES)[:-30], UploadError),
    "cut tar.gz": (make.tar_of(FILES, "gz")[:-30], UploadError),
    "broken gzip": (b"\x1f\x8b" + b"\0" * 100, UploadError),
    "zip with no file": (make.zip_of({}), UploadError),
    "zip with a folder only": (make.zip_of({"kitchen/": b""}), UploadError),
    "zip, parent": (make.zip_of({"../evil": b"x"}), UploadError),
    "zip, parent inside": (make.zip_of({"a/../../evil": b"x"}), UploadError),
    "zip, absolute": (make.zip_of({"/tmp/evil": b"x"}), UploadError),
    "zip, drive": (make.zip_of({"C:evil": b"x"}), UploadError),
    "zip, backslashes": (make.zip_of({"..\\evil": b"x"}), UploadError),
    "zip, line break": (make.zip_of({"a\nb": b"x"}), UploadError),
    "zip, deep": (make.zip_of({"a/" * 40 + "b": b"x"}), UploadError),
    "zip, long name": (make.zip_of({"a" * 300: b"x"}), UploadError),
    "zip, link": (make.zip_symlink("image.png", "/etc/passwd"), UploadError),
    "zip, encrypted": (make.zip_encrypted("image.png"), UploadError),
    "zip, file as folder": (make.zip_of({"a": b"x", "a/b": b"x"}), UploadError),
    "zip, wrong sizes": (make.zip_wrong_sizes("image.png", b"x" * 100), UploadError),
    "zip, bomb": (make.zip_of({"image.png": b"\0" * 100_000}), UploadTooLarge),
    "zip, too much together": (
        make.zip_of({f"{i}.png": b"\0" * 2000 for i in range(4)}),
        UploadTooLarge,
    ),
    "zip, too many": (make.zip_of({f"{i}.png": b"" for i in range(9)}), UploadTooLarge),
    "zip, too many folders": (make.zip_of({f"{i}/": b"" for i in range(9)}), UploadTooLarge),
    "zip, large directory": (make.zip_large_directory("image.png"), UploadTooLarge),
    "tar, parent": (make.tar_of({"../evil": b"x"}), UploadError),
    "tar, absolute": (make.tar_of({"/tmp/evil": b"x"}), UploadError),
    "tar, symbolic link": (make.tar_entry("image.png", tarfile.SYMTYPE, "/etc"), UploadError),
    "tar, hard link": (make.tar_entry("image.png", tarfile.LNKTYPE, "/etc/passwd"), UploadError),
    "tar, device": (make.tar_entry("image.png", tarfile.CHRTYPE), UploadError),
    "tar, pipe": (make.tar_entry("image.png", tarfile.FIFOTYPE), UploadError),
    "tar, twice": (
        make.tar_of({"a": b"x"})[:1024] + make.tar_of({"a": b"y"}),
        UploadError,
    ),
    "tar, too large": (make.tar_of({"image.png": b"\0" * 4000}), UploadTooLarge),
    "tar, attributes": (make.tar_large_attributes(), UploadTooLarge),
    "tar.gz, bomb": (make.tar_of({"image.png": b"\0" * 2**20}, "gz"), UploadTooLarge),
}


@pytest.mark.parametrize(("data", "error"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused(data: bytes, error: type[Exception], tmp_path: Path) -> None:
    folder = tmp_path / "upload"
    folder.mkdir()
    with pytest.raises(error) as caught:
        unpacked(data, folder)
    assert type(caught.value) is error
    assert [path.name for path in tmp_path.iterdir()] == ["upload"]
    assert sorted(path.name for path in folder.iterdir()) == ["scene.upload", "unpacked"]
    written = sum(path.stat().st_size for path in (folder / "unpacked").rglob("*"))
    assert written <= LIMITS.max_extracted_bytes + 4096 * 50
    assert not Path("/tmp/evil").exists()
