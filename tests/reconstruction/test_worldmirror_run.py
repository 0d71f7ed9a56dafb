"""The run of WorldMirror, with a stand-in for HY-World 2.0: a checkout whose pipeline is a script.

The stand-in writes down how it was called and leaves the files that the real one leaves. One test
starts it by torchrun; the others by a launcher that only drops torchrun from the command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.reconstruction.finished_scene import start_frames, write_clips
from worldstereo.errors import (
    GenerationCancelled,
    GenerationError,
    LayoutError,
    MissingDependencyError,
    ParameterError,
)
from worldstereo.reconstruction import foreign_program
from worldstereo.reconstruction.bundle import write_bundle
from worldstereo.reconstruction.foreign_program import run_program
from worldstereo.reconstruction.worldmirror_run import (
    LICENCE_NOTICE,
    WorldMirrorSettings,
    check_licence,
    progress_of,
    run_worldmirror,
    worldmirror_command,
)

VARIANT = "worldstereo-memory-dmd"
RESULTS = Path("world_mirror_data", VARIANT, "results")
# What every stand-in pipeline begins with.
BEGIN = """
import json, os, pathlib, subprocess, sys, time
here = pathlib.Path.cwd()
value = lambda name: sys.argv[sys.argv.index(name) + 1]
results = pathlib.Path(value("--strict_output_path"))
rank = os.environ.get("RANK", "none")
told = {"argv": sys.argv[1:], "rank": rank, "path": os.environ.get("PYTHONPATH")}
(here / "called.json").write_text(json.dumps(told))
"""
LEAVE_RESULTS = """
(results / "depth").mkdir(parents=True)
for name in ("points.ply", "camera_params.json", "depth/0000.npy", "depth/0000.png", "notes.txt"):
    (results / name).write_text(name)
"""


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A result folder with the bundle's folder for WorldMirror: 9 images."""
    folder = tmp_path / "hall"
    clips = write_clips(folder)
    write_bundle(
        folder, ["worldmirror"], clips, cloud=None, start_frames=start_frames(), metric=True
    )
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Callable[[str], WorldMirrorSettings]:
    """Makes a checkout whose pipeline does what it is told, and the settings that name it."""

    def make(script: str, launcher: str | None = None) -> WorldMirrorSettings:
        place = tmp_path / "HY-World-2.0" / "hyworld2" / "worldrecon"
        place.mkdir(parents=True)
        (place.parent / "__init__.py").touch()
        (place / "__init__.py").touch()
        (place / "pipeline.py").write_text(BEGIN + textwrap.dedent(script))
        fake = tmp_path / "launch"
        fake.write_text(
            f"#!{sys.executable}\nimport os, sys\n"
            "assert sys.argv[1:3] == ['-m', 'torch.distributed.run'], sys.argv\n"
            "os.execv(sys.executable, [sys.executable, '-S', '-u', *sys.argv[4:]])\n"
        )
        fake.chmod(0o755)
        return WorldMirrorSettings(
            path=place.parents[1], python=launcher or str(fake), licence_accepted=True
        )

    return make


def test_the_command_is_the_published_one() -> None:
    settings = WorldMirrorSettings(path=Path("/hy"), python="/env/python", gpus=4)
    assert worldmirror_command(Path("/out/scene/world_mirror_data/m"), settings) == [
        "/env/python",
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=4",
        "-m",
        "hyworld2.worldrecon.pipeline",
        "--input_path",
        "/out/scene/world_mirror_data/m/images",
        "--prior_cam_path",
        "/out/scene/world_mirror_data/m/cameras.json",
        "--strict_output_path",
        "/out/scene/world_mirror_data/m/results",
        "--target_size",
        "832",
        "--use_fsdp",
        "--enable_bf16",
        "--no_save_normal",
        "--no_save_gs",
        "--no_sky_mask",
        "--apply_edge_mask",
        "--apply_confidence_mask",
        "--confidence_percentile",
        "15.0",
        "--compress_pts",
        "--no_interactive",
        "--disable_heads",
        "gs",
        "points",
    ]


def test_gaussians_and_a_colmap_model_on_request() -> None:
    plain = WorldMirrorSettings(path=Path("/hy"))
    more = plain.model_copy(update={"gaussians": True, "colmap": True})
    without, with_both = (worldmirror_command(Path("/d"), each) for each in (plain, more))
    dropped = ["--no_save_gs", "--disable_heads", "gs", "points"]
    assert [word for word in with_both if word not in without] == ["--save_colmap"]
    assert [word for word in without if word not in with_both] == dropped


def test_a_run_by_torchrun(
    scene: Path, checkout: Callable[..., WorldMirrorSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real torchrun, one process, on the CPU; the pipeline is a stand-in."""
    settings = checkout(LEAVE_RESULTS + "print('Saved 1/1')", sys.executable)
    monkeypatch.setenv("PYTHONPATH", "/of/another/project")
    stages: list[tuple[str, int, int]] = []
    lines: list[str] = []
    files = run_worldmirror(
        scene, settings, on_stage=lambda *stage: stages.append(stage), on_line=lines.append
    )
    names = ["camera_params.json", "depth/0000.npy", "depth/0000.png", "points.ply"]
    assert [path.relative_to(scene / RESULTS).as_posix() for path in files] == names
    assert stages == [("worldmirror", 0, 0), ("worldmirror", 1, 1)]
    assert "Saved 1/1" in lines
    called = json.loads((settings.path / "called.json").read_text())
    expected = worldmirror_command((scene / RESULTS).parent, settings)
    assert called["argv"] == expected[expected.index("--input_path") :]
    assert (called["rank"], called["path"]) == ("0", None)


def test_lines_and_progress_come_as_they_are_written(
    scene: Path, checkout: Callable[..., WorldMirrorSettings]
) -> None:
    script = """
    import time
    (here / "go").touch()
    print("\\x1b[32mloading weights\\x1b[0m", flush=True)
    while (here / "go").exists():
        time.sleep(0.01)
    sys.stderr.write("  3/8 images\\r  8/8 images\\r")
    os.write(1, b"caf\\xe9 2026/11/23")
    """
    settings = checkout(script + textwrap.dedent(LEAVE_RESULTS).replace("\n", "\n    "))
    stages: list[tuple[str, int, int]] = []
    lines: list[str] = []

    def heard(line: str) -> None:
        lines.append(line)
        (settings.path / "go").unlink(missing_ok=True)  # not before the first line is here

    run_worldmirror(scene, settings, on_stage=lambda *stage: stages.append(stage), on_line=heard)
    assert lines == ["loading weights", "  3/8 images", "  8/8 images", "caf\ufffd 2026/11/23"]
    assert stages == [("worldmirror", step, steps) for step, steps in ((0, 0), (3, 8), (8, 8))]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Inference:  45%|████     | 9/20 [00:03<00:04, 2.5it/s]", (9, 20)),
        ("view 3 of 24", (3, 24)),
        ("saved /out/2024/12 to disk", (0, 0)),
        ("2026/11/23 12:00", (0, 0)),
        ("5/4", (0, 0)),
        ("0/0", (0, 0)),
        ("ratio 1.5/2.5", (0, 0)),
        ("nothing", (0, 0)),
    ],
)
def test_progress_of_a_line(line: str, expected: tuple[int, int]) -> None:
    assert progress_of(line) == expected


@pytest.mark.parametrize("how", ["stopped", "late"])
def test_nothing_is_left_running(
    scene: Path,
    checkout: Callable[..., WorldMirrorSettings],
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not even a process in a session of its own that ends on no polite word."""
    script = """
    child = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "
    child += "time.sleep(600)"
    command = [sys.executable, "-S", "-c", child]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    process.stdout.readline()
    results.mkdir()
    (here / "pids").write_text(f"{os.getpid()} {process.pid}")
    print("ready", flush=True)
    time.sleep(600)
    """
    settings = checkout(script)
    lines: list[str] = []

    def now() -> float:
        """An hour later once the program is up, where its time shall be over."""
        return time.monotonic() + 3600 * (how == "late" and lines == ["ready"])

    clock = SimpleNamespace(monotonic=now, sleep=time.sleep)
    monkeypatch.setattr(foreign_program, "time", clock)
    expected = {"stopped": GenerationCancelled, "late": GenerationError}[how]
    with pytest.raises(expected, match=r"was stopped|longer than 3600 s.* ready"):
        run_worldmirror(
            scene,
            settings,
            on_line=lines.append,
            stop=lambda: how == "stopped" and lines == ["ready"],
        )
    for pid in (settings.path / "pids").read_text().split():
        assert not alive(int(pid))
    assert not (scene / RESULTS).exists()


def alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def test_a_program_that_leaves_another_behind_ends_all_the_same(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys; "
        "p = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'], "
        "start_new_session=True); print(p.pid)"
    )
    lines: list[str] = []
    end = run_program(
        [sys.executable, "-S", "-c", script],
        work=str(tmp_path),
        folder=tmp_path,
        environment={},
        timeout_s=60,
        on_line=lines.append,
        stop=lambda: False,
    )
    assert (end.how, end.status, end.last_lines) == ("ended", 0, tuple(lines))
    assert not alive(int(lines[0]))


def test_what_a_killed_process_left_running_is_ended_first(tmp_path: Path) -> None:
    orphan = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    runner = f"""
import os, pathlib, sys
from worldstereo.reconstruction.foreign_program import run_program
def up(line):
    print(line, flush=True)
    os.kill(os.getpid(), 9)
run_program([sys.executable, "-S", "-c", {orphan!r}], work="scene", folder=pathlib.Path("."),
            environment={{}}, timeout_s=60, on_line=up, stop=lambda: False)
"""
    command = [sys.executable, "-c", runner]
    killed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    pid = int(killed.stdout)

    def run(work: str) -> None:
        run_program(
            [sys.executable, "-S", "-c", ""],
            work=work,
            folder=tmp_path,
            environment={},
            timeout_s=60,
            on_line=lambda line: None,
            stop=lambda: False,
        )

    run("another scene")
    assert alive(pid)
    run("scene")
    assert not alive(pid)


def test_an_error_of_the_listener_ends_the_program(tmp_path: Path) -> None:
    pids = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise RuntimeError("no one listens")

    script = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with pytest.raises(RuntimeError, match="no one listens"):
        run_program(
            [sys.executable, "-S", "-c", script],
            work=str(tmp_path),
            folder=tmp_path,
            environment={},
            timeout_s=60,
            on_line=fail,
            stop=lambda: False,
        )
    assert not alive(pids[0])


def test_a_failure_tells_the_end_of_the_log(
    scene: Path, checkout: Callable[..., WorldMirrorSettings]
) -> None:
    settings = checkout(
        "results.mkdir()\n"
        "for i in range(50): print('line', i)\n"
        "sys.exit('torch.OutOfMemoryError: CUDA out of memory')"
    )
    with pytest.raises(GenerationError, match=r"exit status 1; .*line 49 \| torch.Out") as caught:
        run_worldmirror(scene, settings)
    assert "line 42" not in str(caught.value)
    assert "more GPUs" in str(caught.value)
    assert not (scene / RESULTS).exists()


def test_no_result_is_an_error_even_where_an_earlier_run_left_one(
    scene: Path, checkout: Callable[..., WorldMirrorSettings]
) -> None:
    (scene / RESULTS).mkdir()
    for name in ("points.ply", "camera_params.json"):
        (scene / RESULTS / name).write_text("old")
    settings = checkout("print('nothing to do')")
    with pytest.raises(GenerationError, match=r"no points\.ply, camera_params\.json; .*nothing to"):
        run_worldmirror(scene, settings)
    assert not (scene / RESULTS).exists()


def test_the_licence_comes_first(scene: Path, tmp_path: Path) -> None:
    settings = WorldMirrorSettings(path=tmp_path / "nowhere")
    with pytest.raises(ParameterError, match="licence was not accepted") as caught:
        run_worldmirror(scene, settings)
    assert LICENCE_NOTICE in str(caught.value)
    for word in ("European Union", "United Kingdom", "South Korea", "million", "improve", "name"):
        assert word in LICENCE_NOTICE
    check_licence(settings.model_copy(update={"licence_accepted": True}))


def test_what_is_missing_is_told_with_how_to_get_it(
    scene: Path, checkout: Callable[..., WorldMirrorSettings], tmp_path: Path
) -> None:
    settings = checkout("")
    elsewhere = settings.model_copy(update={"path": tmp_path / "nowhere"})
    with pytest.raises(MissingDependencyError, match=r"not installed there; .* git clone https://"):
        run_worldmirror(scene, elsewhere)
    with pytest.raises(MissingDependencyError, match=r"worldmirror\.python: there is no such"):
        run_worldmirror(scene, settings.model_copy(update={"python": "/no/python"}))


def test_what_it_reads_is_checked_before_it_starts(
    scene: Path, checkout: Callable[..., WorldMirrorSettings]
) -> None:
    settings = checkout("")
    data = (scene / RESULTS).parent
    images = len(list((data / "images").iterdir()))
    with pytest.raises(LayoutError, match=f"got {images} images for {images + 1} GPUs"):
        run_worldmirror(scene, settings.model_copy(update={"gpus": images + 1}))
    (data / "images" / "extra-0000.png").touch()
    with pytest.raises(LayoutError, match="no camera for extra-0000; have the output"):
        run_worldmirror(scene, settings)
    (data / "cameras.json").write_text("[]")
    with pytest.raises(LayoutError, match="prior cameras cannot be read"):
        run_worldmirror(scene, settings)
    (data / "cameras.json").unlink()
    with pytest.raises(LayoutError, match="ask for the output worldmirror first"):
        run_worldmirror(scene, settings)
    assert not (settings.path / "called.json").exists()


def test_the_reconstruction_of_one_of_several_variants(
    scene: Path, checkout: Callable[..., WorldMirrorSettings]
) -> None:
    settings = checkout(LEAVE_RESULTS)
    other = scene / "world_mirror_data" / "other"
    os.symlink(scene / "world_mirror_data" / VARIANT, other)
    with pytest.raises(LayoutError, match=f"several .*got other, {VARIANT}"):
        run_worldmirror(scene, settings)
    assert len(run_worldmirror(scene, settings, model_type=VARIANT)) == 4
    with pytest.raises(LayoutError, match="nothing for WorldMirror to read"):
        run_worldmirror(scene, settings, model_type="third")
