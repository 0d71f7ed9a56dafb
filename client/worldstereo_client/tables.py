"""What the command line prints about scenes and models: rich tables."""

from __future__ import annotations

import time
from collections.abc import Iterable

from rich.console import Group
from rich.table import Table
from rich.text import Text

from worldstereo_client.schemas import ModelInfo, Scene, SceneSummary, TrajectoryInfo

COLOURS = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "skipped": "yellow",
    "in_progress": "cyan",
}


def scene_table(scene: Scene) -> Group:
    """One scene: its state in a line, then its trajectories in canonical order."""
    head = Text.assemble(
        (scene.name, "bold"),
        f"  {scene.id}  ",
        _status(scene.status),
        f"  {scene.progress:.0%}  {scene.parameters.variant}  seed {scene.parameters.seed}",
    )
    if scene.queue_position is not None:
        head.append(f"  {scene.queue_position} scenes ahead")
    if scene.eta_s is not None:
        head.append(f"  about {scene.eta_s:.0f} s left")
    if scene.error:
        head.append(f"\n{scene.error.detail}", "red")
    table = Table("trajectory", "state", "step", "seconds", "after", box=None, pad_edge=False)
    for item in scene.trajectories:
        table.add_row(
            Text(item.id),
            _status(item.status),
            Text(step_of(item)),
            Text(_seconds(item)),
            Text(", ".join(item.depends_on)),
        )
        if item.error:
            table.add_row("", Text(item.error.detail, "red"))
    return Group(head, table)


def scenes_table(scenes: Iterable[SceneSummary]) -> Table:
    """One row for each scene."""
    table = Table("id", "name", "state", "done", "variant", "created", box=None, pad_edge=False)
    for scene in scenes:
        created = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(scene.created_at))
        table.add_row(
            Text(scene.id),
            Text(scene.name),
            _status(scene.status),
            f"{scene.progress:.0%}",
            Text(scene.variant),
            created,
        )
    return table


def models_table(models: Iterable[ModelInfo]) -> Table:
    """One row for each variant."""
    table = Table("variant", "weights", "steps", "guidance", "sizes", "ready", box=None)
    for model in models:
        table.add_row(
            Text(model.id),
            Text(model.source),
            str(model.num_inference_steps),
            "-" if model.guidance_scale is None else f"{model.guidance_scale:g}",
            ", ".join(f"{height}x{width}" for height, width in model.sizes),
            "yes" if model.ready else "no",
        )
    return table


def _status(status: str) -> Text:
    return Text(str(status), COLOURS.get(status, ""))


def step_of(item: TrajectoryInfo) -> str:
    """The stage of a trajectory in progress in words, e.g. ``denoise 3 of 4``; else empty."""
    if item.stage is None or item.status.terminal:
        return ""
    return f"{item.stage} {item.step} of {item.steps}" if item.steps else item.stage


def _seconds(item: TrajectoryInfo) -> str:
    if item.started_at is None or item.finished_at is None:
        return ""
    return f"{item.finished_at - item.started_at:.1f}"
