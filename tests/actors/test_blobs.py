"""A scene's files go to a blob store and come back elsewhere, whole or as they were before."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from actors.blobs import BlobDamaged, BlobStore, BlobStoreAway
from tests.actors.s3 import s3_server


@pytest.fixture(scope="module")
def bucket() -> Iterator[BlobStore]:
    with s3_server() as store:
        yield store


@pytest.fixture(params=["folder", "s3"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path, bucket: BlobStore) -> BlobStore:
    if request.param == "folder":
        return BlobStore(f"file://{tmp_path}/blobs", {"auto_mkdir": True})
    return BlobStore(f"{bucket.url}/{tmp_path.name}", bucket.options)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def content(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def test_files_come_back_on_another_node(blobs: BlobStore, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    write(here / "output", {"plan.json": "{}", "renders/a/frames/0000.png": "pixels"})
    write(here / "output", {"renders/.b.0123456789abcdef.tmp/frames/0000.png": "unfinished"})
    blobs.scene("one", here).push("output")
    blobs.scene("one", there).pull("output")
    assert content(there / "output") == {"plan.json": "{}", "renders/a/frames/0000.png": "pixels"}
    blobs.scene("other", there / "other").pull("output")
    assert not (there / "other").exists()


def test_only_what_is_new_or_changed_is_sent(
    blobs: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    scene = blobs.scene("one", tmp_path / "here")
    put = scene._files.put_file
    monkeypatch.setattr(scene._files, "put_file", lambda a, b: (sent.append(b), put(a, b)))
    write(tmp_path / "here" / "output", {"a": "1", "b": "1"})
    scene.push("output")
    assert [name[-1] for name in sent] == ["a", "b"]
    sent.clear()
    write(tmp_path / "here" / "output", {"b": "longer", "c": "1"})
    scene.push("output")
    assert [name[-1] for name in sent] == ["b", "c"]
    # A process that starts knows nothing, and sends nothing that is there.
    sent.clear()
    again = blobs.scene("one", tmp_path / "here")
    monkeypatch.setattr(again._files, "put_file", lambda a, b: sent.append(b))
    again.push("output")
    assert sent == []
    assert {name: file.bytes for name, file in again.index("output").items()} == {
        "a": 1,
        "b": 6,
        "c": 1,
    }


def test_what_is_removed_here_is_removed_there(blobs: BlobStore, tmp_path: Path) -> None:
    scene = blobs.scene("one", tmp_path / "here")
    write(tmp_path / "here" / "output", {"a": "1", "manifest.json": "{}"})
    scene.push("output")
    (tmp_path / "here" / "output" / "manifest.json").unlink()
    scene.push("output")
    assert set(scene.index("output")) == {"a"}
    assert not scene._files.exists(scene._blob("output", "manifest.json"))


def test_what_others_pushed_meanwhile_stays(blobs: BlobStore, tmp_path: Path) -> None:
    """A process that was replaced comes back late: it knows nothing of its successor's files."""
    late, successor = (blobs.scene("one", tmp_path / node) for node in ("late", "successor"))
    write(tmp_path / "late" / "output", {"a": "1", "manifest.json": "{}"})
    late.push("output")
    successor.pull("output")
    write(tmp_path / "successor" / "output", {"b": "2"})
    (tmp_path / "successor" / "output" / "manifest.json").unlink()
    successor.push("output")
    assert set(successor.index("output")) == {"a", "b"}, "what it has pulled it may remove"
    (tmp_path / "late" / "output" / "manifest.json").unlink()
    write(tmp_path / "late" / "output", {"c": "3"})
    late.push("output")
    blobs.scene("one", tmp_path / "there").pull("output")
    assert content(tmp_path / "there" / "output") == {"a": "1", "b": "2", "c": "3"}


def test_a_folder_that_is_lost_takes_nothing_along(blobs: BlobStore, tmp_path: Path) -> None:
    scene = blobs.scene("one", tmp_path / "here")
    write(tmp_path / "here" / "output", {"a": "1", "b": "2"})
    scene.push("output")
    shutil.rmtree(tmp_path / "here")
    scene.push("output")
    assert set(scene.pull("output")) == {"a", "b"}


def test_a_file_that_differs_here_is_replaced(blobs: BlobStore, tmp_path: Path) -> None:
    write(tmp_path / "here" / "input", {"a": "true"})
    blobs.scene("one", tmp_path / "here").push("input")
    write(tmp_path / "there" / "input", {"a": "lies"})
    path = blobs.scene("one", tmp_path / "there").fetch("input", "a")
    assert path.read_text() == "true"
    with pytest.raises(FileNotFoundError):
        blobs.scene("one", tmp_path / "there").fetch("input", "../a")


def test_what_the_index_does_not_name_never_happened(blobs: BlobStore, tmp_path: Path) -> None:
    """A push that was cut off before its index: the files alone are not seen."""
    scene = blobs.scene("one", tmp_path / "here")
    write(tmp_path / "here" / "output", {"a": "1"})
    scene.push("output")
    scene._files.pipe_file(scene._blob("output", "b"), b"2")
    assert set(scene.index("output")) == {"a"}
    blobs.scene("one", tmp_path / "there").pull("output")
    assert content(tmp_path / "there" / "output") == {"a": "1"}


def test_a_damaged_blob_is_told(blobs: BlobStore, tmp_path: Path) -> None:
    scene = blobs.scene("one", tmp_path / "here")
    write(tmp_path / "here" / "output", {"a": "true"})
    scene.push("output")
    scene._files.pipe_file(scene._blob("output", "a"), b"lies")
    with pytest.raises(BlobDamaged, match="not the one that was written"):
        blobs.scene("one", tmp_path / "there").pull("output")
    assert content(tmp_path / "there") == {}


def test_a_deleted_scene_leaves_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    scene = blobs.scene("one", tmp_path / "here")
    write(tmp_path / "here" / "output", {"a": "1"})
    scene.push("output")
    scene.delete()
    scene.delete()
    assert scene.index("output") == {}
    root, path = fsspec.core.url_to_fs(blobs.url, skip_instance_cache=True, **blobs.options)
    assert not root.find(f"{path}/one")


def test_a_store_that_is_down_is_told(tmp_path: Path) -> None:
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "a",
        "secret": "b",
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 1}},
    }
    scene = BlobStore("s3://bucket/scenes", options).scene("one", tmp_path)
    with pytest.raises(BlobStoreAway, match=r"s3://bucket/scenes.*cannot be used"):
        scene.index("output")
