"""``worldstereo status --watch`` against the stub: what it shows, and how it ends."""

from __future__ import annotations

import io
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console
from worldstereo_client.client import Client
from worldstereo_client.live_status import View, watch_scene, watch_scenes

from tests.client.stub_scenes import TRAJECTORIES, failed_script, problem, queued_script
from tests.client.stub_server import Stub
from tests.client.test_cli import call

QUICK = ("--watch", "--interval", "0.05")


@pytest.fixture
def scene(stub: Stub, scene_folder: Path) -> str:
    """A scene that goes on by an event with each look at it."""
    stub.by_looks = True
    assert call("submit", scene_folder, url=stub.url).exit_code == 0
    return "scene-0"


def test_a_line_for_each_change_until_the_scene_ends(stub: Stub, scene: str) -> None:
    result = call("status", scene, *QUICK, url=stub.url)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == f"scene {scene} completed 100%"
    assert f"{TRAJECTORIES[1]} completed" in lines
    assert any(line.startswith(f"{TRAJECTORIES[0]} in_progress denoise ") for line in lines)
    assert len(set(lines)) == len(lines)
    assert "\x1b" not in result.stdout


def test_json_has_an_object_for_each_change(stub: Stub, scene: str) -> None:
    result = call("status", scene, *QUICK, "--json", url=stub.url)
    states = [json.loads(line) for line in result.stdout.splitlines()]
    assert (states[-1]["status"], states[-1]["progress"]) == ("completed", 1.0)
    assert len(states) > 2
    assert all(a != b for a, b in itertools.pairwise(states))


def test_a_failed_scene_ends_it_with_its_code(stub: Stub, scene_folder: Path) -> None:
    broke = problem(500, "GenerationError", "the engine broke")
    stub.script = lambda: failed_script(broke)
    call("submit", scene_folder, url=stub.url)
    result = call("status", "scene-0", *QUICK, url=stub.url)
    assert result.exit_code == 1
    assert result.stdout == "scene scene-0 failed 0%: the engine broke\n"
    assert call("status", *QUICK, url=stub.url).exit_code == 0  # it had ended before


def test_an_unknown_scene_and_a_missing_server(stub: Stub) -> None:
    assert call("status", "none", *QUICK, url=stub.url).exit_code == 2
    assert call("status", *QUICK, url=stub.url).exit_code == 0  # nothing to wait for


def test_all_scenes_are_followed_until_the_last_has_ended(
    stub: Stub, scene: str, scene_folder: Path
) -> None:
    call("submit", scene_folder, "--seed", "2", url=stub.url)
    result = call("status", *QUICK, url=stub.url)
    assert result.exit_code == 0, result.output
    last_of = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert last_of == {name: f"{name} kitchen completed 100%" for name in ("scene-0", "scene-1")}


def test_one_that_is_cancelled_meanwhile_sets_the_code(
    stub: Stub, scene: str, scene_folder: Path
) -> None:
    stub.script = queued_script
    call("submit", scene_folder, "--seed", "2", url=stub.url)

    def cancel() -> None:
        while len(stub.seen("GET", "/v1/scenes")) < 2:  # it is followed
            time.sleep(0.01)
        call("cancel", "scene-1", url=stub.url)

    cancelling = threading.Thread(target=cancel)
    cancelling.start()
    try:
        # Only scenes in progress are listed: the cancelled one leaves the list and is asked for.
        result = call("status", "--state", "queued", *QUICK, url=stub.url)
    finally:
        cancelling.join()
    assert result.exit_code == 4, result.output


def test_a_terminal_shows_one_table_that_stays(client: Client, stub: Stub, scene: str) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, color_system=None)
    assert watch_scene(client, scene, View(console, as_json=False), 0.05) == 0
    shown = out.getvalue()
    assert "\x1b[" in shown  # drawn over
    last = shown.rpartition("kitchen")[2]
    assert "completed" in last
    assert all(name in last for name in TRAJECTORIES)
    assert watch_scenes(client, None, 5, View(console, as_json=False), 0.05) == 0


def drain(terminal: int) -> None:
    with suppress(OSError):  # it is closed, or nobody writes any more
        while os.read(terminal, 4096):
            pass


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are Unix's: use Linux")
def test_ctrl_c_ends_it_at_a_real_terminal(stub: Stub, scene_folder: Path) -> None:
    stub.script = queued_script
    call("submit", scene_folder, url=stub.url)
    leader, follower = pty.openpty()
    words = ["status", "scene-0", *QUICK, "--url", stub.url]
    code = "from worldstereo_client.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdout=follower,
        stderr=follower,
        stdin=follower,
        # Who runs the tests in the background has them ignore it, and all that they start.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    os.close(follower)
    try:
        shown = b""
        deadline = time.monotonic() + 60
        while b"queued" not in shown:
            assert time.monotonic() < deadline
            shown += os.read(leader, 4096)
        process.send_signal(signal.SIGINT)
        # A terminal that nobody reads would hold it back.
        threading.Thread(target=drain, args=[leader], daemon=True).start()
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
        os.close(leader)
