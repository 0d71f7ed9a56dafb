"""The server's commands as far as they go without starting Ray."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from worldstereo_client import cli, errors
from worldstereo_client.exit_codes import ExitCode
from worldstereo_client.results import link_published_names

from deployments import commands, local_run
from tests.client.stub_scenes import (
    TRAJECTORIES,
    completed_script,
    failed_script,
    problem,
    queued_script,
)
from tests.client.stub_server import Stub
from worldstereo.errors import CameraError, LayoutError
from worldstereo.types import SceneInput


@pytest.fixture
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where a command would start Ray."""

    def start(*arguments: object, **options: object) -> None:
        pytest.fail("a cluster was started")

    monkeypatch.setattr(local_run, "embedded_cluster", start)


@pytest.fixture(autouse=True)
def _signals_as_before() -> object:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli.build_app(), [str(a) for a in arguments])


def test_all_commands_are_there() -> None:
    app = cli.build_app()
    names = {
        info.name or getattr(info.callback, "__name__", "") for info in app.registered_commands
    }
    assert names == {
        *("run", "serve", "submit", "status", "watch", "cancel", "download", "models", "doctor"),
        *("build", "export", "evaluate", "fetch-weights", "resume", "delete", "gc"),
    }
    assert "keys" in {
        group.name or group.typer_instance.info.name for group in app.registered_groups
    }


@pytest.mark.parametrize("dash", ["_", "-"])
def test_run_takes_the_published_flags(
    stub: Stub, scene_folder: Path, tmp_path: Path, dash: str
) -> None:
    flags = {
        "--model_type": "worldstereo-memory",
        "--input_path": str(scene_folder),
        "--output_path": str(tmp_path / "out"),
        "--task_type": "reconstruction",
        "--align_nframe": "4",
        "--seed": "5",
        "--guidance": "2.5",
    }
    words = [
        w for name, value in flags.items() for w in ("--" + name[2:].replace("_", dash), value)
    ]
    local = "--local_files_only".replace("_", dash) if dash == "_" else "--local-files-only"
    result = call("run", *words, local, "--url", stub.url)
    assert result.exit_code == 0, result.output
    sent = stub.scenes["scene-0"].parameters
    assert (sent.variant, sent.task_type) == ("worldstereo-memory", "reconstruction")
    assert (sent.align_nframe, sent.seed, sent.guidance_scale) == (4, 5, 2.5)
    for name in TRAJECTORIES:
        assert (tmp_path / "out" / "kitchen" / name / "worldstereo-memory_result.mp4").is_file()
    assert result.stdout == f"kitchen: 2 videos, 9 files in {tmp_path / 'out' / 'kitchen'}\n"


def test_run_in_json(stub: Stub, scene_folder: Path, tmp_path: Path) -> None:
    result = call("run", scene_folder, "-o", tmp_path / "out", "--url", stub.url, "--json")
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["name"], told["status"]) == ("kitchen", "completed")
    assert all(Path(path).is_file() for path in told["files"])
    assert result.stderr == ""


def test_run_tells_of_a_failed_scene(stub: Stub, scene_folder: Path, tmp_path: Path) -> None:
    stub.script = lambda: failed_script(problem(500, "GenerationError", "out of memory"))
    result = call("run", scene_folder, "-o", tmp_path / "out", "--url", stub.url)
    assert result.exit_code == ExitCode.SCENE_FAILED
    assert "error: scene kitchen: out of memory" in result.stderr


@pytest.mark.usefixtures("no_cluster")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model_type", "worldstereo-gigantic"], "worldstereo-memory-dmd"),
        (["--model", "no-such-model"], "no such configuration"),
        (["--seed", "-1"], "seed"),
        (["--steps", "0"], "num_inference_steps"),
        (["--guidance", "101"], "guidance_scale"),
        (["--task_type", "movie"], "task_type"),
        (["--align_nframe", "21"], "align_nframe"),
        (["--replicas", "0"], "--replicas"),
        (["--ulysses", "0"], "--ulysses"),
        (["--cfg", "3"], "--cfg"),
        (["--fsdp", "--url", "http://127.0.0.1:1"], "--url: how a clip is split over GPUs"),
    ],
)
def test_run_refuses_parameters_before_it_starts(
    scene_folder: Path, arguments: list[str], message: str
) -> None:
    result = call("run", scene_folder, *arguments)
    assert result.exit_code == ExitCode.BAD_INPUT, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.usefixtures("no_cluster")
def test_run_refuses_a_folder_that_is_no_scene(tmp_path: Path) -> None:
    result = call("run", tmp_path / "absent")
    assert result.exit_code == ExitCode.BAD_INPUT
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    (tmp_path / "empty").mkdir()
    assert call("run", tmp_path / "empty").exit_code == ExitCode.BAD_INPUT


def reader(broken: dict[str, Exception]) -> Callable[[Path], SceneInput]:
    def read(folder: Path) -> SceneInput:
        if folder.name in broken:
            raise broken[folder.name]
        if not (folder / "image.png").exists():
            raise LayoutError("no layout", where=folder.name)
        size = (16, 16)
        return SceneInput(folder.name, "reconstruction", folder, size, (), ())

    return read


def test_a_folder_of_scenes(tmp_path: Path) -> None:
    for name in ("b", "a", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.png").touch()
    (tmp_path / "notes.txt").touch()
    assert [p.name for p in local_run.read_scenes(tmp_path, reader({}))] == ["a", "b"]
    assert list(local_run.read_scenes(tmp_path / "a", reader({}))) == [tmp_path / "a"]
    (tmp_path / "c").mkdir()
    with pytest.raises(LayoutError, match="c: c: no layout"):
        local_run.read_scenes(tmp_path, reader({}))
    with pytest.raises(CameraError, match=r"a: camera\.json: 3 cameras"):
        local_run.read_scenes(
            tmp_path, reader({"a": CameraError("3 cameras", where="camera.json")})
        )


def test_a_folder_without_scenes_is_itself_to_blame(tmp_path: Path) -> None:
    (tmp_path / "scenes" / "a").mkdir(parents=True)
    with pytest.raises(LayoutError, match=r"^scenes: no layout$"):
        local_run.read_scenes(tmp_path / "scenes", reader({}))
    # One folder that is a scene, but a bad one, tells more.
    with pytest.raises(CameraError):
        local_run.read_scenes(tmp_path / "scenes", reader({"a": CameraError("bad")}))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_serve_refuses_other_hosts(host: str, no_cluster: None) -> None:
    result = call("serve", "--host", host)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "--host" in result.stderr
    assert "127.0.0.1" in result.stderr
    assert "--require-keys" in result.stderr


def test_serve_refuses_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = call("serve", "--port", str(taken.getsockname()[1]))
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "the port cannot be used" in result.stderr


@pytest.mark.parametrize(
    "arguments", [["--config", "nowhere"], ["--variants", "a,b"], ["--model", "nothing"]]
)
def test_serve_refuses_bad_settings(arguments: list[str]) -> None:
    result = call("serve", "--port", "0", *arguments)
    assert result.exit_code == ExitCode.BAD_INPUT
    assert "Traceback" not in result.output


def test_ctrl_c_cancels_the_scene_of_a_run(stub: Stub, scene_folder: Path) -> None:
    stub.script = queued_script
    code = "from worldstereo_client.cli import main; main()"
    arguments = ["run", str(scene_folder), "--url", stub.url, "-o", str(scene_folder / "out")]
    running = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True
    )
    while not stub.seen("GET", "/events"):
        time.sleep(0.02)
    time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, stderr = running.communicate(timeout=60)
    assert running.returncode == ExitCode.INTERRUPTED
    assert stub.scenes["scene-0"].snapshot().status == "cancelled"
    assert "Traceback" not in stderr


def test_a_run_that_cannot_go_on_cancels_its_scenes(
    stub: Stub, scene_folder: Path, tmp_path: Path
) -> None:
    stub.script = completed_script
    stub.fail_next("GET", "traj_up/video.mp4", times=2, flip=0)
    result = call("run", scene_folder, "-o", tmp_path / "out", "--url", stub.url)
    assert result.exit_code == ExitCode.DAMAGED
    assert len(stub.seen("POST", "/cancel")) == 1


def test_published_names_are_links_and_may_be_made_again(tmp_path: Path) -> None:
    video = tmp_path / "renders" / "traj_up" / "video.mp4"
    video.parent.mkdir(parents=True)
    for content in (b"one", b"two", b"two"):
        video.unlink(missing_ok=True)
        video.write_bytes(content)
        (link,) = link_published_names(
            [video, video.with_name("cameras.json")], "worldstereo-camera"
        )
        assert link == video.with_name("worldstereo-camera_result.mp4")
        assert link.samefile(video)
        assert link.read_bytes() == content
    assert sorted(path.name for path in video.parent.iterdir()) == [video.name, link.name]


def test_published_names_are_copies_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    video = tmp_path / "video.mp4"
    video.write_bytes(b"one")
    (copy,) = link_published_names([video], "worldstereo-camera")
    assert copy.read_bytes() == b"one"
    assert not copy.samefile(video)


def test_the_engines_errors_become_the_clients() -> None:
    with pytest.raises(errors.CameraError) as caught, commands.engine_errors():
        raise CameraError("wrong", where="camera.json", got="3", allowed="21", fix="add")
    assert str(caught.value) == "camera.json: wrong; got 3; allowed: 21; add"


def test_fetch_weights_of_the_bundled_model() -> None:
    result = call("fetch-weights", "--model", "worldstereo-tiny", "--local_files_only")
    assert result.exit_code == 0
    assert [line.split(": ")[0] for line in result.stdout.splitlines()] == [
        "worldstereo-memory-dmd",
        "base model",
        "image features",
    ]


def test_the_client_and_its_commands_import_no_engine() -> None:
    code = (
        "import sys; from worldstereo_client.cli import build_app; build_app(); "
        "heavy = {'torch', 'ray', 'diffusers'} & sys.modules.keys(); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
