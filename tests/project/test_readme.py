"""The README's own blocks, run as a reader would run them, and its table of measurements.

A fenced block in ``python`` or ``bash`` is run unless the line before it is an HTML comment that
begins with ``not run:`` and says why. A server answers at an address of its own, which takes the
place of the README's, with a miniature model; the engine's own block runs the bundled one. Of the
demo scene's four trajectories two are there, for half the time.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.table import DOCUMENTS, README, with_table
from tests.miniature import miniature_settings

ROOT = Path(__file__).parents[2]
README_URL = "http://127.0.0.1:8000"
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>python|bash)\n(?P<code>.*?)```",
    re.DOTALL,
)
BLOCKS = list(BLOCK.finditer(README.read_text()))
RUN = [block for block in BLOCKS if not block["reason"]]
# As in a shell after `. .venv/bin/activate`.
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
}


@pytest.fixture(scope="module")
def served_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of `worldstereo serve`."""
    folder = tmp_path_factory.mktemp("served")
    model = str(miniature_settings(folder))
    options = ("--port", "0", "--data", str(folder / "data"), "--model", model)
    command = ["worldstereo", "serve", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        address = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert address, line
        yield address.group()
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


def test_the_readme_shows_the_two_commands_and_runs_its_examples() -> None:
    text = README.read_text()
    assert "make demo" in text
    assert "make test" in text
    languages = [block["language"] for block in RUN]
    assert languages.count("python") >= 2
    assert languages.count("bash") >= 2


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_table_is_what_the_results_say(document: Path) -> None:
    assert with_table(document) == document.read_text(), "run: python -m benchmarks.table"


@pytest.mark.cluster
@pytest.mark.parametrize("block", RUN, ids=lambda block: block["code"].strip().splitlines()[0][:50])
def test_a_block_runs(block: re.Match[str], served_url: str, tmp_path: Path) -> None:
    scene = Path("examples") / "demo_scene"
    left_out = shutil.ignore_patterns("traj_left", "traj_right")
    shutil.copytree(ROOT / scene, tmp_path / scene, ignore=left_out)
    code = block["code"].replace(README_URL, served_url)
    python = block["language"] == "python"
    program = [sys.executable, "-c", code] if python else ["bash", "-euo", "pipefail", "-c", code]
    done = subprocess.run(
        program,
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
