"""What a waiting user sees, on a terminal and in a log."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from worldstereo_client import AsyncClient, Client
from worldstereo_client.errors import GenerationError
from worldstereo_client.progress import SceneBars, scene_progress
from worldstereo_client.schemas import Event

from tests.client.stub_scenes import TRAJECTORIES, completed_script, failed_script, problem
from tests.client.stub_server import Stub


def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)


def log() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=40)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_sees_bars_and_what_is_done(client: Client, scene_folder: Path) -> None:
    console = terminal()
    job = client.scenes.submit(scene_folder)
    job.wait(progress=console)
    job.download(scene_folder.parent / "out", progress=console)
    for name in TRAJECTORIES:
        assert f"done {name}" in text(console)


def test_bars_follow_the_events(client: Client, scene_folder: Path) -> None:
    from rich.progress import Progress

    scene = client.scenes.submit(scene_folder).status()
    with Progress(console=terminal(), disable=True) as progress:
        bars = SceneBars(scene, progress)
        for event in completed_script()[:5]:  # up to step 2 of 3 of the first trajectory
            bars.show(event)
        overall, first = progress.tasks
        assert (overall.completed, overall.total) == (0, 2)
        assert (first.description.strip(), first.completed, first.total) == (TRAJECTORIES[0], 2, 3)
        assert first.fields["stage"] == "denoise 2 of 3"
        for event in completed_script()[5:]:
            bars.show(event)
        (overall,) = progress.tasks
        assert (overall.completed, overall.fields["stage"]) == (2, "completed")


def test_a_log_gets_one_line_for_each_change_of_state(client: Client, scene_folder: Path) -> None:
    console = log()
    client.scenes.submit(scene_folder).wait(progress=console)
    assert text(console).splitlines() == [
        "scene queued",
        "scene in_progress",
        *(f"{name} {state}" for name in TRAJECTORIES for state in ("in_progress", "completed")),
        "scene completed",
    ]


async def test_the_asynchronous_client_shows_the_same(
    async_client: AsyncClient, scene_folder: Path
) -> None:
    console = log()
    await (await async_client.scenes.submit(scene_folder)).wait(progress=console)
    assert "renders/traj_up completed" in text(console)


def test_reasons_are_told_and_are_no_markup(client: Client, stub: Stub, scene_folder: Path) -> None:
    reason = "tensor of shape [3, 4] [bold]"
    stub.script = lambda: failed_script(problem(500, "GenerationError", reason))
    job = client.scenes.submit(scene_folder)
    console = log()
    with pytest.raises(GenerationError):
        job.wait(progress=console)
    assert f"scene failed: {reason}" in text(console)
    error = problem(500, "GenerationError", reason)
    event = Event(id=1, time=0, type="trajectory", trajectory="a/[b]", status="failed", error=error)
    console = terminal()
    with scene_progress(job.status(), console) as show:
        show(event)
    assert f"failed a/[b]: {reason}" in text(console)
