"""What a folder becomes on its way to the server."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from worldstereo_client.archive import open_archive, scene_files, scene_name, write_zip
from worldstereo_client.errors import LayoutError


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    write_zip(folder, file)
    return file.getvalue()


def test_equal_folders_give_equal_bytes(scene_folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    # Made in another order, at other times, with other permissions.
    (twin / "renders" / "traj_up").mkdir(parents=True)
    for name in ("renders/traj_up/camera.json", "prompt.json", "image.png"):
        (twin / name).write_bytes((scene_folder / name).read_bytes())
        os.utime(twin / name, (10**9, 10**9))
        (twin / name).chmod(0o600)
    assert packed(twin) == packed(scene_folder)
    (twin / "prompt.json").write_text("other")
    assert packed(twin) != packed(scene_folder)


def test_all_files_are_inside_and_hidden_ones_are_not(scene_folder: Path) -> None:
    (scene_folder / ".DS_Store").write_bytes(b"x")
    (scene_folder / ".git").mkdir()
    (scene_folder / ".git" / "config").write_bytes(b"x")
    with zipfile.ZipFile(io.BytesIO(packed(scene_folder))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["image.png", "prompt.json", "renders/traj_up/camera.json"]
        assert archive.read("image.png") == b"image"
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_links_inside_are_followed(scene_folder: Path) -> None:
    (scene_folder / "copy.png").symlink_to("image.png")
    (scene_folder / "again").symlink_to("renders")
    names = [name for name, _ in scene_files(scene_folder)]
    assert "copy.png" in names
    assert "again/traj_up/camera.json" in names


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside.txt", "/etc"])
def test_links_that_leave_are_refused(scene_folder: Path, target: str) -> None:
    (scene_folder.parent / "outside.txt").write_text("secret")
    (scene_folder / "renders" / "link").symlink_to(
        target if target.startswith("/") else scene_folder / target
    )
    with pytest.raises(LayoutError, match="leaves the scene folder"):
        packed(scene_folder)


def test_links_that_lead_nowhere_or_round(scene_folder: Path) -> None:
    (scene_folder / "renders" / "loop").symlink_to(scene_folder)
    with pytest.raises(LayoutError, match="leads into itself"):
        packed(scene_folder)
    (scene_folder / "renders" / "loop").unlink()
    (scene_folder / "absent.png").symlink_to("nothing.png")
    with pytest.raises(LayoutError, match="broken symbolic link"):
        packed(scene_folder)


def test_a_folder_that_is_itself_a_link(scene_folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(scene_folder)
    assert packed(link) == packed(scene_folder)


def test_special_files_are_refused(scene_folder: Path) -> None:
    os.mkfifo(scene_folder / "pipe")
    with pytest.raises(LayoutError, match="neither a file nor a folder"):
        packed(scene_folder)


def test_what_is_no_scene(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.zip").write_text("not a zip")
    for name, message in [
        ("empty", "is empty"),
        ("text.zip", "no archive"),
        ("absent", "no such scene folder"),
    ]:
        with pytest.raises(LayoutError, match=message), open_archive(tmp_path / name):
            pass


def test_archives_are_known_by_content(scene_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "upload.bin"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(scene_folder, "kitchen")
    with open_archive(path) as (name, file):
        assert name == "upload.bin"
        assert file.read() == path.read_bytes()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kitchen", "kitchen"),
        ("my kitchen (2)", "my_kitchen_2_"),
        ("_hidden", "hidden"),
        ("küche", "k_che"),
        ("...", "scene"),
        ("v1.5", "v1.5"),
    ],
)
def test_names_of_folders(tmp_path: Path, name: str, expected: str) -> None:
    (tmp_path / name).mkdir(exist_ok=True)
    folder = tmp_path / name if name != "..." else tmp_path / "\u2026"
    folder.mkdir(exist_ok=True)
    assert scene_name(folder) == expected


@given(st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=50), min_size=1, max_size=5))
def test_every_folder_survives_the_trip(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]
) -> None:
    folder = tmp_path_factory.mktemp("scene")
    for name, content in files.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(io.BytesIO(packed(folder))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
