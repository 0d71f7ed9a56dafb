"""Ended scenes go by age and by size, oldest first, a few at a time; running ones never."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from worldstereo_client import cli
from worldstereo_client.schemas import SceneRequest, SceneStatus

from configs.settings import RetentionSettings
from deployments import folders, removal
from deployments import retention as rules
from deployments.errors import StoreAway
from deployments.folders import SceneFolders
from deployments.records import NewScene
from deployments.removal import remove_scene
from deployments.retention import Retention, folder_bytes, sweep_for_ever
from deployments.store import Store
from deployments.tables import sqlite_url

NOW = 10_000.0


class Service:
    """A store whose clock is set, and files beside it."""

    def __init__(self, root: Path) -> None:
        self.now = NOW
        self.folders = SceneFolders(root)
        self.store = Store(sqlite_url(root / "store.sqlite"), clock=lambda: self.now)

    def scene(self, scene_id: str, age_s: float, size: int, end: SceneStatus | None = None) -> None:
        """A scene of ``size`` bytes that came to its state ``age_s`` ago; None: it has ended."""
        self.now = NOW - age_s
        self.store.add_scene(NewScene(scene_id, "s", SceneRequest(), ("v/a",)), max_queued=99)
        way = {
            SceneStatus.QUEUED: (),
            SceneStatus.IN_PROGRESS: (SceneStatus.IN_PROGRESS,),
            SceneStatus.CANCELLING: (SceneStatus.CANCELLING,),
            SceneStatus.CANCELLED: (SceneStatus.CANCELLING, SceneStatus.CANCELLED),
            SceneStatus.FAILED: (SceneStatus.IN_PROGRESS, SceneStatus.FAILED),
        }
        for state in way.get(end, (SceneStatus.IN_PROGRESS, SceneStatus.COMPLETED)):
            self.store.advance_scene(scene_id, state)
        output = self.folders.scene(scene_id).output
        output.mkdir(parents=True)
        with (output / "video.mp4").open("wb") as file:
            file.truncate(size)
        self.now = NOW

    def retention(self, **settings: float) -> Retention:
        limits = RetentionSettings.model_validate(settings)
        return Retention(self.store, self.folders, limits, clock=lambda: self.now)

    def left(self) -> set[str]:
        """Scenes that have a folder, which are those that have a row."""
        folders = {folder.root.name for folder in self.folders.stored()}
        rows = self.store.known(
            folders | {record.id for record in self.store.page(None, None, 99)[0]}
        )
        assert folders == rows
        return folders


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path / "data")


def test_scenes_go_by_age_oldest_first(service: Service) -> None:
    service.scene("young", 50, 1)
    service.scene("oldest", 300, 1, SceneStatus.CANCELLED)
    service.scene("old", 200, 1, SceneStatus.FAILED)
    retention = service.retention(max_age_s=100)
    assert [(item.scene.id, item.reason) for item in retention.expired()] == [
        ("oldest", "age"),
        ("old", "age"),
    ]
    assert [item.scene.id for item in retention.sweep()] == ["oldest", "old"]
    assert service.left() == {"young"}
    assert retention.sweep() == []


def test_scenes_go_by_size_until_the_rest_fits(service: Service) -> None:
    for number, size in enumerate((40, 30, 20, 10)):
        service.scene(f"s{number}", 100 - number, size)
    assert service.retention(max_bytes=100).expired() == []
    found = service.retention(max_bytes=35).expired()
    assert [(item.scene.id, item.bytes, item.reason) for item in found] == [
        ("s0", 40, "size"),
        ("s1", 30, "size"),
    ]
    service.retention(max_bytes=35).sweep()
    assert service.left() == {"s2", "s3"}


def test_what_goes_by_age_makes_room(service: Service) -> None:
    service.scene("old", 300, 70)
    service.scene("young", 50, 30)
    found = service.retention(max_age_s=100, max_bytes=30).expired()
    assert [(item.scene.id, item.reason) for item in found] == [("old", "age")]


@pytest.mark.parametrize(
    "state", [SceneStatus.QUEUED, SceneStatus.IN_PROGRESS, SceneStatus.CANCELLING]
)
def test_a_scene_that_has_not_ended_never_goes(state: SceneStatus, service: Service) -> None:
    service.scene("one", 9000, 1000, state)
    assert service.retention(max_age_s=1, max_bytes=0).sweep() == []
    assert service.left() == {"one"}


def test_a_scene_that_is_resumed_meanwhile_stays(service: Service) -> None:
    service.scene("one", 9000, 1, SceneStatus.FAILED)
    retention = service.retention(max_age_s=1)
    (item,) = retention.expired()
    service.store.resume_scene("one", max_queued=9)
    assert not retention.remove(item)
    assert service.left() == {"one"}


def test_a_sweep_does_a_bounded_piece_of_work(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(7):
        service.scene(f"s{number}", 100 - number, 10)
    retention = service.retention(max_age_s=1, max_scenes_per_sweep=3)
    assert [len(retention.sweep()) for _ in range(4)] == [3, 3, 1, 0]

    for number in range(6):
        service.scene(f"t{number}", 100 - number, 10)
    monkeypatch.setattr(rules, "MEASURED_AT_ONCE", 2)
    measured: list[str] = []

    def counting(folder: Path) -> int:
        measured.append(folder.name)
        return folder_bytes(folder)

    monkeypatch.setattr(rules, "folder_bytes", counting)
    retention = service.retention(max_bytes=35)
    # What is not measured counts as nothing: too little goes at first, and never too much.
    assert [len(retention.sweep()) for _ in range(5)] == [0, 1, 2, 0, 0]
    assert sorted(measured) == [f"t{number}" for number in range(6)], "each once"
    assert service.left() == {"t3", "t4", "t5"}


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("error", "logged"),
    [
        (OSError("a folder on a disk that fails"), 1),
        (StoreAway("the store does not answer"), 0),  # the store has logged it
    ],
)
async def test_the_sweeper_tidies_up_and_goes_on_after_a_failure(
    service: Service,
    error: Exception,
    logged: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    service.scene("old", 300, 1)
    service.scene("stray", 300, 1)
    service.folders.scene("stray").deleted.touch()
    service.store.delete_scene("stray")
    retention = service.retention(max_age_s=100, sweep_interval_s=60)
    failures = [error]
    ended: Callable[[], object] = service.store.ended

    def away_once() -> object:
        if failures:
            raise failures.pop()
        return ended()

    monkeypatch.setattr(service.store, "ended", away_once)
    sweeping = asyncio.create_task(sweep_for_ever(retention))
    await asyncio.sleep(30)
    assert service.left() == {"old"}
    await asyncio.sleep(100)
    assert service.left() == set()
    service.scene("later", 300, 1)
    await asyncio.sleep(61)
    assert service.left() == set()
    assert caplog.text.count("Traceback") == logged
    sweeping.cancel()


@pytest.mark.virtual_time
async def test_without_limits_nothing_is_swept_and_strays_go(service: Service) -> None:
    """Also those of deletions that are cut short while the orchestrator runs."""
    service.scene("old", 9000, 1)
    service.scene("stray", 9000, 1)
    sweeping = asyncio.create_task(sweep_for_ever(service.retention(sweep_interval_s=60)))
    await asyncio.sleep(30)
    service.folders.mark("stray")
    service.store.delete_scene("stray")
    await asyncio.sleep(60)
    assert service.left() == {"old"}
    sweeping.cancel()


def gc(service: Service, *arguments: str) -> Result:
    return CliRunner().invoke(
        cli.build_app(), ["gc", "--data", str(service.folders.root), *arguments]
    )


def test_a_dry_run_says_what_would_go_and_removes_nothing(service: Service) -> None:
    service.scene("old", 300, 2_000_000)
    service.scene("young", 0, 1_000_000)
    said = gc(service, "--max-gb", "0.0015", "--dry-run")
    assert said.exit_code == 0, said.output
    assert "old" in said.stdout
    assert "young" not in said.stdout
    assert said.stdout.endswith("1 scenes, 2.0 MB would go\n")
    assert service.left() == {"old", "young"}
    answer = json.loads(gc(service, "--max-gb", "0.0015", "--dry-run", "--json").stdout)
    assert [(row["id"], row["bytes"], row["reason"]) for row in answer["scenes"]] == [
        ("old", 2_000_000, "size")
    ]
    assert (answer["bytes"], answer["removed"]) == (2_000_000, False)


def test_the_command_removes_what_it_said(service: Service) -> None:
    service.scene("old", 300, 2_000_000)
    service.scene("running", 300, 9_000_000, SceneStatus.IN_PROGRESS)
    said = gc(service, "--max-age-days", "0")
    assert said.stdout.endswith("1 scenes, 2.0 MB removed\n")
    assert service.left() == {"running"}


def test_unknown_folders_go_only_when_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "NEW_SCENE_S", -1.0)
    service.scene("kept", 0, 1)
    folder = service.folders.scene("unknown").output
    folder.mkdir(parents=True)
    assert "unknown" in gc(service, "--unknown", "--dry-run").stdout
    assert folder.exists()
    assert gc(service, "--unknown").exit_code == 0
    assert service.left() == {"kept"}


def test_the_command_says_what_is_missing(service: Service, tmp_path: Path) -> None:
    without = gc(service)
    assert (without.exit_code, "--max-age-days or --max-gb" in without.stderr) == (2, True)
    (tmp_path / "empty").mkdir()
    nowhere = CliRunner().invoke(
        cli.build_app(), ["gc", "--data", str(tmp_path / "empty"), "--max-gb", "1"]
    )
    assert (nowhere.exit_code, "no store of scenes" in nowhere.stderr) == (2, True)
    assert os.listdir(tmp_path / "empty") == []


def test_files_that_cannot_be_removed_are_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.scene("one", 300, 1)

    def denied(path: Path) -> None:
        raise PermissionError(f"{path}: denied")

    monkeypatch.setattr(folders.shutil, "rmtree", denied)
    with pytest.raises(PermissionError):
        remove_scene(service.store, service.folders, "one")
    assert service.folders.scene("one").deleted.exists(), "the next start tries again"
