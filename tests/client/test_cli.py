"""The command line against the stub: what it prints and what its exit codes say."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from worldstereo_client import cli
from worldstereo_client.exit_codes import ExitCode

from tests.client.stub_scenes import (
    TRAJECTORIES,
    completed_script,
    failed_script,
    problem,
    queued_script,
    result_files,
)
from tests.client.stub_server import Stub

NOBODY = "http://127.0.0.1:9"


def call(*arguments: str | Path, url: str | None = None) -> Result:
    environment = {"WORLDSTEREO_URL": url} if url else {}
    return CliRunner().invoke(cli.build_app(), [str(a) for a in arguments], env=environment)


def test_submit_prints_the_id(stub: Stub, scene_folder: Path) -> None:
    result = call("submit", scene_folder, "--url", stub.url)
    assert (result.exit_code, result.stdout) == (0, "scene-0\n")
    assert stub.scenes["scene-0"].name == "kitchen"


def test_the_address_comes_from_the_environment(stub: Stub, scene_folder: Path) -> None:
    assert call("submit", scene_folder, url=stub.url).exit_code == 0


@pytest.mark.parametrize("dash", ["_", "-"])
def test_published_flags_in_both_spellings(stub: Stub, scene_folder: Path, dash: str) -> None:
    flags = {
        "--model_type": "worldstereo-camera",
        "--input_path": str(scene_folder),
        "--task_type": "reconstruction",
        "--align_nframe": "4",
        "--seed": "5",
    }
    words = [part for name, value in flags.items() for part in (spelled(name, dash), value)]
    result = call("submit", *words, url=stub.url)
    assert result.exit_code == 0, result.output
    sent = stub.scenes["scene-0"].parameters
    assert (sent.variant, sent.task_type) == ("worldstereo-camera", "reconstruction")
    assert (sent.align_nframe, sent.seed) == (4, 5)


def spelled(flag: str, dash: str) -> str:
    return "--" + flag[2:].replace("_", dash)


def test_the_published_defaults(stub: Stub, scene_folder: Path) -> None:
    assert call("submit", scene_folder, url=stub.url).exit_code == 0
    sent = stub.scenes["scene-0"].parameters
    assert (sent.seed, sent.align_nframe) == (1024, 8)


def test_submit_and_fetch_in_one_go(stub: Stub, scene_folder: Path, tmp_path: Path) -> None:
    stub.tick_s = 0.01
    result = call("submit", scene_folder, "--wait", "--output", tmp_path / "out", url=stub.url)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out" / "kitchen"
    assert result.stdout == f"kitchen: 2 videos, 9 files in {folder}\n"
    for name in TRAJECTORIES:
        published = folder / name / "worldstereo-memory-dmd_result.mp4"
        assert published.read_bytes() == result_files()[f"{name}/video.mp4"]
        assert published.samefile(folder / name / "video.mp4")
    assert "renders/traj_up completed" in result.stderr


def test_fetching_twice_leaves_the_same_files(
    stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    call("submit", scene_folder, url=stub.url)
    first = call("download", "scene-0", "--output-path", output, "--json", url=stub.url)
    assert first.exit_code == 0, first.output
    again = call("download", "scene-0", "--output_path", output, "--json", url=stub.url)
    assert json.loads(first.stdout) == json.loads(again.stdout)
    there = {str(p) for p in output.rglob("*") if p.is_file()}
    assert there == set(json.loads(first.stdout)["files"])


def test_watch_prints_one_event_a_line(stub: Stub, scene_folder: Path) -> None:
    stub.tick_s = 0.01
    call("submit", scene_folder, url=stub.url)
    result = call("watch", "scene-0", "--json", url=stub.url)
    assert result.exit_code == 0
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["id"] for event in events] == list(range(1, len(completed_script()) + 1))


def test_a_failed_scene_has_its_exit_code_and_reason(stub: Stub, scene_folder: Path) -> None:
    stub.script = lambda: failed_script(problem(500, "GenerationError", "out of memory"))
    call("submit", scene_folder, url=stub.url)
    for arguments in (["watch", "scene-0"], ["submit", str(scene_folder), "--wait"]):
        result = call(*arguments, url=stub.url)
        assert result.exit_code == ExitCode.SCENE_FAILED
        assert "out of memory" in result.stderr
    assert call("watch", "scene-0", "--json", url=stub.url).exit_code == ExitCode.SCENE_FAILED


def test_a_cancelled_scene_has_its_exit_code(stub: Stub, scene_folder: Path) -> None:
    stub.script = queued_script
    call("submit", scene_folder, url=stub.url)
    result = call("cancel", "scene-0", "--wait", url=stub.url)
    assert (result.exit_code, result.stdout) == (0, "scene-0 cancelled\n")
    assert call("watch", "scene-0", url=stub.url).exit_code == ExitCode.CANCELLED


def test_status_of_one_and_of_all(stub: Stub, scene_folder: Path) -> None:
    for _ in range(3):
        call("submit", scene_folder, url=stub.url)
    one = call("status", "scene-1", url=stub.url)
    assert one.exit_code == 0
    for word in ("kitchen", "scene-1", "completed", "100%", "renders/traj_right", "seed 1024"):
        assert word in one.stdout
    assert json.loads(call("status", "scene-1", "--json", url=stub.url).stdout)["id"] == "scene-1"
    rows = json.loads(call("status", "--json", "--limit", "2", url=stub.url).stdout)
    assert [row["id"] for row in rows] == ["scene-2", "scene-1"]
    assert "scene-0" in call("status", "--state", "completed", url=stub.url).stdout
    assert "scene-0" not in call("status", "--state", "failed", url=stub.url).stdout


def test_models(stub: Stub) -> None:
    result = call("models", url=stub.url)
    assert result.exit_code == 0
    assert "worldstereo-memory-dmd" in result.stdout
    assert "128x192" in result.stdout
    assert json.loads(call("models", "--json", url=stub.url).stdout)[0]["nframe"] == 21


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["models", "--url", NOBODY], 3, "cannot connect to the server"),
        (["models", "--url", "nonsense"], 2, "not the address of a server"),
        (["status", "nope"], 2, "no such scene"),
        (["submit", "absent-folder"], 2, "no such scene folder or archive"),
        (["submit"], 2, "name one scene folder"),
        (["submit", "a", "--input_path", "b"], 2, "name one scene folder"),
        (["submit", "a", "--task_type", "movie"], 2, "task_type"),
        (["submit", "a", "--seed", "-1"], 2, "seed"),
        (["submit", "a", "--seed", "many"], 2, "--seed"),
        (["dance"], 2, "dance"),
    ],
)
def test_mistakes_are_one_line_and_a_code(
    stub: Stub, arguments: list[str], code: int, message: str
) -> None:
    result = call(*arguments, url=stub.url)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [(500, "InternalError", 5), (422, "CameraError", 2), (413, "UploadTooLarge", 2)],
)
def test_a_servers_errors_have_codes(
    stub: Stub, scene_folder: Path, status: int, error: str, code: int
) -> None:
    stub.fail_next("POST", "/v1/scenes", status=status, error=error)
    result = call("submit", scene_folder, url=stub.url)
    assert (result.exit_code, result.stderr) == (code, "error: injected\n")


def test_damaged_files_have_a_code(stub: Stub, scene_folder: Path, tmp_path: Path) -> None:
    call("submit", scene_folder, url=stub.url)
    stub.fail_next("GET", "traj_up/video.mp4", times=2, flip=0)
    result = call("download", "scene-0", "-o", tmp_path, url=stub.url)
    assert result.exit_code == ExitCode.DAMAGED


def test_without_the_server_its_commands_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cli, "entry_points", lambda group: [])
    for command in ("run", "serve", "doctor"):
        result = call(command, "--input_path", "scenes/kitchen")
        assert result.exit_code == ExitCode.INSTALLATION
        assert "pip install -e client -e ." in result.stderr
        assert command in call("--help").stdout


@contextmanager
def process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    # Also where the tests run in the background of a script, whose children ignore Ctrl-C.
    hears = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    command = [sys.executable, "-c", hears + "from worldstereo_client.cli import main; main()"]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "NO_COLOR": "1"},
    ) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--version"], 0), (["models", "--url", NOBODY], 3), (["watch"], 2), (["status", "nope"], 2)],
)
def test_exit_codes_of_a_real_process(stub: Stub, arguments: list[str], code: int) -> None:
    url = [] if "--url" in arguments or code == 0 else ["--url", stub.url]
    with process(*arguments, *url) as running:
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == code, stderr
    assert "Traceback" not in stderr


def test_ctrl_c_ends_a_watch_and_not_the_scene(stub: Stub, scene_folder: Path) -> None:
    stub.script = queued_script
    call("submit", scene_folder, url=stub.url)
    with process("watch", "scene-0", "--url", stub.url) as running:
        while not stub.seen("GET", "/events"):
            time.sleep(0.02)
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        _, stderr = running.communicate(timeout=60)
    assert running.returncode == ExitCode.INTERRUPTED
    assert "worldstereo cancel scene-0" in stderr
    assert "Traceback" not in stderr
    assert stub.scenes["scene-0"].snapshot().status == "queued"


def test_submit_names_a_webhook(stub: Stub, scene_folder: Path) -> None:
    url = "https://hooks.example/told"
    assert call("submit", scene_folder, "--webhook", url, url=stub.url).exit_code == 0
    assert stub.scenes["scene-0"].parameters.webhook_url == url
