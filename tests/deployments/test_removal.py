"""Scenes that are deleted, alone or because nobody keeps them; all files of one as a zip."""

import io
import os
import shutil
import zipfile
from pathlib import Path

import httpx
import pytest
from worldstereo_client.schemas import SceneRequest, SceneStatus, TrajectoryStatus

from deployments import removal
from deployments.archive_stream import stream_zip
from deployments.errors import SceneNotFound, StateConflict
from deployments.folders import SceneFolders
from deployments.records import NewScene, Submission
from deployments.removal import remove_scene, remove_strays, unknown_scenes
from deployments.store import Store
from tests.deployments.http_api import problem_in


def ended(store: Store, folders: SceneFolders, scene_id: str, size: int = 10) -> Path:
    """A completed scene with one file of ``size`` bytes; its folder."""
    new = NewScene(scene_id, "kitchen", SceneRequest(), ("renders/a",))
    store.add_scene(new, Submission(f"key of {scene_id}", "aaaa"), max_queued=99)
    store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)
    store.advance_trajectory(scene_id, "renders/a", TrajectoryStatus.QUEUED)
    store.start_attempt(scene_id, "renders/a", f"attempt of {scene_id}", 1)
    store.advance_trajectory(scene_id, "renders/a", TrajectoryStatus.COMPLETED)
    store.advance_scene(scene_id, SceneStatus.COMPLETED)
    folder = folders.scene(scene_id)
    (folder.output / "renders" / "a").mkdir(parents=True)
    (folder.output / "renders" / "a" / "video.mp4").write_bytes(b"v" * size)
    (folder.output / "manifest.json").write_bytes(b"{}")
    return folder.root


async def test_a_deleted_scene_leaves_nothing(
    http: httpx.AsyncClient, store: Store, folders: SceneFolders
) -> None:
    folder, other = ended(store, folders, "one"), ended(store, folders, "two")
    response = await http.delete("/v1/scenes/one")
    assert (response.status_code, response.content) == (204, b"")
    assert not folder.exists()
    assert other.exists()
    problem_in(await http.get("/v1/scenes/one"), 404, "SceneNotFound")
    problem_in(await http.delete("/v1/scenes/one"), 404, "SceneNotFound")
    assert store.events("one", 0) == []
    assert store.attempts("one", "renders/a") == []
    assert store.submission(Submission("key of one", "bbbb")) is None, "the key is free again"
    assert store.scene("two").status is SceneStatus.COMPLETED


async def test_a_scene_that_has_not_ended_stays(
    http: httpx.AsyncClient, store: Store, folders: SceneFolders
) -> None:
    store.add_scene(NewScene("one", "s", SceneRequest(), ("v/a",)), max_queued=9)
    folders.scene("one").output.mkdir(parents=True)
    states = (SceneStatus.QUEUED, SceneStatus.IN_PROGRESS, SceneStatus.CANCELLING)
    for state in states:
        if state is not SceneStatus.QUEUED:
            store.advance_scene("one", state)
        problem = problem_in(await http.delete("/v1/scenes/one"), 409, "StateConflict")
        assert (problem.got, problem.fix) == (state, "cancel it first")
        assert folders.scene("one").output.is_dir()
    assert store.scene("one").status is SceneStatus.CANCELLING


def test_a_crash_between_rows_and_files_leaves_a_stray_that_the_next_start_removes(
    store: Store, folders: SceneFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other = ended(store, folders, "one"), ended(store, folders, "two")

    def dies(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            remove_scene(store, folders, "one")
    with pytest.raises(SceneNotFound):
        store.scene("one")
    assert (folder / "output").is_dir()
    assert remove_strays(store, folders) == [folder]
    assert not folder.exists()
    assert other.exists()


def test_what_no_deletion_left_is_no_stray(
    store: Store, folders: SceneFolders, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a scene that is just being submitted, or of another store by mistake."""
    upload = folders.new_upload().root
    folders.scene("unknown").output.mkdir(parents=True)
    assert unknown_scenes(store, folders) == [], "it is new"
    monkeypatch.setattr(removal, "NEW_SCENE_S", -1.0)
    assert [folder.root.name for folder in unknown_scenes(store, folders)] == ["unknown"]
    assert remove_strays(store, folders) == []
    monkeypatch.setattr(removal, "LONGEST_UPLOAD_S", -1.0)
    assert remove_strays(store, folders) == [upload]
    assert folders.scene("unknown").output.is_dir()


def test_a_path_is_no_scene(store: Store, folders: SceneFolders) -> None:
    folders.scene("x").root.mkdir(parents=True)
    with pytest.raises(SceneNotFound):
        remove_scene(store, folders, "..")
    assert not (folders.root / ".deleted").exists()


def test_a_resumed_scene_is_not_deleted(store: Store, folders: SceneFolders) -> None:
    store.add_scene(NewScene("one", "s", SceneRequest(), ("v/a",)), max_queued=9)
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    store.advance_scene("one", SceneStatus.FAILED)
    store.resume_scene("one", max_queued=9)
    folders.scene("one").output.mkdir(parents=True)
    with pytest.raises(StateConflict, match="queued"):
        remove_scene(store, folders, "one")
    assert folders.scene("one").output.is_dir()
    assert not folders.scene("one").deleted.exists()


async def test_the_archive_holds_the_artefacts(
    http: httpx.AsyncClient, store: Store, folders: SceneFolders
) -> None:
    output = ended(store, folders, "one", size=3_000_000) / "output"
    (output / "renders" / "a b").mkdir()
    (output / "renders" / "a b" / "ümlaut.png").write_bytes(os.urandom(70_000))
    (output / ".plan.json.0123456789abcdef.tmp").write_bytes(b"half")
    (output / "link.json").symlink_to("/etc/passwd")
    response = await http.get("/v1/scenes/one/archive")
    assert response.headers["Content-Type"] == "application/zip"
    assert response.headers["Content-Disposition"] == 'attachment; filename="kitchen.zip"'
    listed = (await http.get("/v1/scenes/one/artefacts")).json()["artefacts"]
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {item["name"] for item in listed}
        assert archive.namelist()[-1] == "manifest.json"
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            assert archive.read(entry) == (output / entry.filename).read_bytes()
    problem_in(await http.get("/v1/scenes/none/archive"), 404, "SceneNotFound")


def test_an_archive_is_never_held_whole(tmp_path: Path) -> None:
    file = tmp_path / "large.mp4"
    with file.open("wb") as sparse:
        sparse.truncate(40 << 20)
    sizes = [len(piece) for piece in stream_zip([("large.mp4", file), ("again.mp4", file)])]
    assert sum(sizes) > 80 << 20
    assert max(sizes) < 2 << 20


def test_a_file_that_goes_away_breaks_the_archive(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(b"a")
    pieces = stream_zip([("a.png", file), ("b.png", tmp_path / "b.png")])
    with pytest.raises(FileNotFoundError):
        list(pieces)
