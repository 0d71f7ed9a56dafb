"""`worldstereo run` and `worldstereo serve` with a real embedded cluster and a real model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from worldstereo_client import Client
from worldstereo_client.exit_codes import ExitCode

from cluster.processes import descendants
from tests.miniature import miniature_settings
from tests.scenes import make_reconstruction
from worldstereo.formats.manifest import read_manifest
from worldstereo.formats.video import video_info

pytestmark = pytest.mark.cluster

START_TIMEOUT_S = 180


def command(*arguments: str | Path) -> list[str]:
    code = "from worldstereo_client.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def test_run_generates_every_scene_of_a_folder(tmp_path: Path) -> None:
    for name in ("bath", "room"):
        make_reconstruction(tmp_path / "scenes" / name, ("traj_up",), size=(32, 48))
    arguments = ["--input_path", tmp_path / "scenes", "--output_path", tmp_path / "out"]
    arguments += ["--model", miniature_settings(tmp_path)]
    done = subprocess.run(
        command("run", *arguments, "--replicas", "2", "--steps", "1", "--json"),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    assert done.returncode == ExitCode.OK, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(scene["name"], scene["status"]) for scene in told] == [
        ("bath", "completed"),
        ("room", "completed"),
    ]
    for scene in told:
        folder = Path(scene["folder"])
        clip = folder / "renders" / "traj_up"
        published = clip / "worldstereo-memory-dmd_result.mp4"
        assert published.samefile(clip / "video.mp4")
        assert video_info(published).frames == len(list((clip / "frames").iterdir())) == 21
        _, listed = read_manifest(folder)
        assert {folder / file.name for file in listed} <= {Path(p) for p in scene["files"]}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_serve_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    data, said = tmp_path / "data", tmp_path / "said.txt"
    with (
        said.open("w") as stderr,
        subprocess.Popen(
            command("serve", "--port", "0", "--data", data),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        ) as server,
    ):
        assert server.stdout is not None
        line = server.stdout.readline()
        below = descendants(server.pid)
        try:
            assert line.startswith("serving at http://127.0.0.1:"), line
            url = line.split()[2].rstrip(";")
            with Client(url) as client:
                assert client.ready().status == "ok"
                assert [model.ready for model in client.models()] == [True]
            (metrics,) = re.findall(r"metrics: (http://127\.0\.0\.1:\d+/metrics)", said.read_text())
            assert "ray_serve_" in httpx.get(metrics).text
        finally:
            # As a terminal does at Ctrl-C: to every process of the group, and twice.
            os.killpg(server.pid, signal.SIGINT)
            time.sleep(0.2)
            os.killpg(server.pid, signal.SIGINT)
            server.wait(60)
    assert server.returncode == ExitCode.OK
    assert below
    assert [process for process in below if process.alive] == []
