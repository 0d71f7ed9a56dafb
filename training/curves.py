"""Curves of all stages: ``python -m training.curves RUNS`` writes ``curves.json`` and ``.png``.

Needs matplotlib.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from training.run import LOG

STAGES = ("vae", "memory", "camera", "dmd")


def read_curves(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """The logged lines of each stage that has run."""
    found = {}
    for stage in STAGES:
        log = runs / stage / LOG
        if log.exists():
            lines = log.read_text(encoding="utf-8").splitlines()
            found[stage] = [json.loads(line) for line in lines]
    return found


def draw(curves: dict[str, list[dict[str, Any]]], file: Path) -> None:
    """One row a stage: the loss, and what was validated."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 2.6 * len(curves)), layout="constrained")
    axes = figure.subplots(len(curves), 2, squeeze=False)
    for (stage, lines), (left, right) in zip(curves.items(), axes, strict=True):
        losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
        left.semilogy(*zip(*losses, strict=True))
        left.set(title=f"{stage}: loss", xlabel="step")
        names = sorted({n for line in lines for n in line if n.startswith("validation")})
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            label = name.removeprefix("validation_").replace("_", " ")
            right.plot(*zip(*points, strict=True), marker=".", label=label)
        right.set(title=f"{stage}: validation, dB", xlabel="step")
        if names:
            right.legend()
    figure.savefig(file, dpi=100)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.curves", description=__doc__)
    parser.add_argument("runs", type=Path)
    runs = parser.parse_args().runs
    curves = read_curves(runs)
    assert curves, f"no stage has run in {runs}"
    text = json.dumps(curves, indent=1)
    (runs / "curves.json").write_text(text + "\n", encoding="utf-8")
    draw(curves, runs / "curves.png")


if __name__ == "__main__":
    main()
