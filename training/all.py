"""All stages, one after the other: ``python -m training.all FOLDER`` on any CUDA machine.

``FOLDER/worlds`` gets the scenes (about 14 MB each), ``FOLDER/runs`` checkpoints and curves,
``FOLDER/worldstereo-tiny`` the model. A stage that has used its minutes is not run again, so that
the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path


def commands(folder: Path) -> list[list[str]]:
    """Arguments of ``python -m`` for each stage."""
    worlds, runs = str(folder / "worlds"), str(folder / "runs")
    return [
        ["training.worlds", worlds],
        ["training.autoencoder", runs, worlds],
        ["training.generator", runs, worlds, "memory"],
        ["training.generator", runs, worlds, "camera"],
        ["training.distil", runs, worlds],
        ["training.export", runs, str(folder / "worldstereo-tiny")],
        ["training.curves", runs],
    ]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.all", description=__doc__)
    parser.add_argument("folder", type=Path)
    for command in commands(parser.parse_args().folder):
        print("python -m", *command, flush=True)
        subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()
