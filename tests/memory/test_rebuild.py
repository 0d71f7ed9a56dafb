"""A scene that is stopped at any point leaves a folder from which it goes on to the same bytes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.memory.folders import (
    TRAJECTORIES,
    files,
    generated,
    open_run,
    run_all,
    write_reconstruction,
)
from tests.memory.scenes import ready
from worldstereo import scene as scene_module
from worldstereo.formats.manifest import verify_manifest


@pytest.fixture(scope="module")
def reconstruction(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reconstruction(tmp_path_factory.mktemp("scenes") / "hall")


@pytest.mark.parametrize("stop", range(len(TRAJECTORIES) + 1))
def test_a_run_that_was_stopped_goes_on_to_the_same_bytes(
    reconstruction: Path, tmp_path: Path, stop: int
) -> None:
    whole = open_run(reconstruction, tmp_path / "whole")
    run_all(whole)
    stopped = open_run(reconstruction, tmp_path / "stopped")
    for _ in range(stop):
        name = ready(stopped.plan, stopped.committed)[-1]
        stopped.commit(name, generated(stopped.prepare(name)), {"attempt": 1})
    resumed = open_run(reconstruction, tmp_path / "stopped")
    assert resumed.plan == stopped.plan
    assert resumed.committed == stopped.committed
    run_all(resumed)
    assert files(tmp_path / "stopped") == files(tmp_path / "whole")


class Stop(Exception):
    """The process ends here."""


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, *, after: bool) -> None:
    """Let ``owner.name`` end the process before or after its work."""
    original: Callable[..., object] = getattr(owner, name)

    def stopping(*args: object, **kwargs: object) -> object:
        if after:
            original(*args, **kwargs)
        raise Stop

    monkeypatch.setattr(owner, name, stopping)


@pytest.mark.parametrize(
    ("point", "after", "kept"),
    [
        ("write_trajectory", False, False),
        ("write_trajectory", True, True),
        ("bank.add", False, True),
        ("bank.add", True, True),
    ],
)
def test_a_stop_during_a_commit_leaves_all_or_nothing(
    reconstruction: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    after: bool,
    kept: bool,
) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    frames = generated(run.prepare(TRAJECTORIES[0]))
    with monkeypatch.context() as patch:
        if point == "bank.add":
            stop_at(patch, run._bank, "add", after=after)
        else:
            stop_at(patch, scene_module, point, after=after)
        with pytest.raises(Stop):
            run.commit(TRAJECTORIES[0], frames, {})
    # The same process may try again, as a retried call of an actor does.
    assert run.commit(TRAJECTORIES[0], frames, {}) is not kept
    assert run.committed == {TRAJECTORIES[0]}
    resumed = open_run(reconstruction, tmp_path / "out")
    assert resumed.committed == {TRAJECTORIES[0]}
    expected, actual = run.prepare(TRAJECTORIES[1]), resumed.prepare(TRAJECTORIES[1])
    np.testing.assert_array_equal(generated(actual), generated(expected))


def test_a_stop_inside_the_writer_leaves_nothing(
    reconstruction: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    before = files(tmp_path / "out")
    frames = generated(run.prepare(TRAJECTORIES[0]))
    with monkeypatch.context() as patch:
        stop_at(patch, Path, "rename", after=False)
        stop_at(patch, Path, "replace", after=False)
        patch.setattr("os.rename", lambda *_: (_ for _ in ()).throw(Stop()))
        patch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(Stop()))
        with pytest.raises(Stop):
            run.commit(TRAJECTORIES[0], frames, {})
    assert not run.folder(TRAJECTORIES[0]).exists()
    resumed = open_run(reconstruction, tmp_path / "out")
    assert resumed.committed == frozenset()
    assert files(tmp_path / "out") == before
    assert resumed.commit(TRAJECTORIES[0], frames, {})


def test_what_a_killed_writer_left_is_removed(reconstruction: Path, tmp_path: Path) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    run_all(run)
    before = files(tmp_path / "out")
    shutil.copytree(
        run.folder(TRAJECTORIES[0]), tmp_path / "out/renders/.traj_up.0123456789abcdef.tmp"
    )
    (tmp_path / "out/.plan.json.0123456789abcdef.tmp").write_text("{")
    assert open_run(reconstruction, tmp_path / "out").committed == set(TRAJECTORIES)
    assert files(tmp_path / "out") == before


def test_a_finished_scene_that_goes_on_has_no_manifest(
    reconstruction: Path, tmp_path: Path
) -> None:
    run = open_run(reconstruction, tmp_path / "out")
    first = TRAJECTORIES[0]
    run.commit(first, generated(run.prepare(first)), {})
    run.finish({name: "completed" if name == first else "failed" for name in TRAJECTORIES})
    resumed = open_run(reconstruction, tmp_path / "out")
    assert (tmp_path / "out" / "manifest.json").is_file()
    run_all(resumed)
    assert not (tmp_path / "out" / "manifest.json").exists()
    resumed.finish(dict.fromkeys(TRAJECTORIES, "completed"))
    verify_manifest(tmp_path / "out")


def test_two_runs_that_commit_the_same_clip_keep_the_first(
    reconstruction: Path, tmp_path: Path
) -> None:
    first = open_run(reconstruction, tmp_path / "out")
    second = open_run(reconstruction, tmp_path / "out")
    frames = generated(first.prepare(TRAJECTORIES[0]))
    assert first.commit(TRAJECTORIES[0], frames, {})
    before = files(tmp_path / "out")
    assert not second.commit(TRAJECTORIES[0], frames, {})
    assert second.committed == {TRAJECTORIES[0]}
    assert files(tmp_path / "out") == before
    np.testing.assert_array_equal(
        generated(first.prepare(TRAJECTORIES[1])), generated(second.prepare(TRAJECTORIES[1]))
    )
