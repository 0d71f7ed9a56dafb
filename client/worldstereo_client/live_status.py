"""``worldstereo status --watch``: one scene, or all of a server, as they stand until they end.

On a terminal a table that is drawn again and again; elsewhere a line for each change; with --json
an object for each.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import typer
from rich.console import Console, RenderableType
from rich.live import Live

from worldstereo_client import tables
from worldstereo_client.client import Client
from worldstereo_client.exit_codes import ExitCode, exit_code_of_scene
from worldstereo_client.schemas import Scene, SceneStatus, SceneSummary

# What a line is about, and the line.
_Line = tuple[str, str]


def watch_scene(client: Client, scene_id: str, view: View, interval_s: float) -> ExitCode:
    """Show a scene until it ends.

    Args:
        client: of the server.
        scene_id: of the scene.
        view: what shows it.
        interval_s: how often the server is asked, seconds.

    Returns:
        The exit status of a scene that ended so.
    """
    with view.open():
        while True:
            scene = client.scenes.get(scene_id)
            view.show(tables.scene_table(scene), scene_lines(scene), scene)
            if scene.status.terminal:
                return exit_code_of_scene(scene)
            time.sleep(interval_s)


def watch_scenes(
    client: Client, status: SceneStatus | None, limit: int, view: View, interval_s: float
) -> ExitCode:
    """Show the newest scenes until none of them, as far as it was seen, is still to end.

    Args:
        client: of the server.
        status: only scenes that are in this state.
        limit: scenes that are shown at most; older ones that have not ended are followed, too.
        view: what shows them.
        interval_s: how often the server is asked, seconds.

    Returns:
        OK when all that were seen unended have completed, else that of a failed or cancelled one.
    """
    followed: dict[str, SceneStatus] = {}
    with view.open():
        while True:
            listed = client.scenes.list(status=status, page_size=min(limit, 100))
            rows = [row for row, _ in zip(listed, range(limit), strict=False)]
            here = {row.id: row.status for row in rows}
            followed |= {key: state for key, state in here.items() if not state.terminal}
            for key, state in followed.items():
                if key in here:
                    followed[key] = here[key]
                elif not state.terminal:
                    followed[key] = client.scenes.get(key).status
            shown = [row.model_dump(mode="json") for row in rows]
            view.show(tables.scenes_table(rows), map(summary_line, rows), shown)
            if all(state.terminal for state in followed.values()):
                return _exit_code(followed.values())
            time.sleep(interval_s)


class View:
    """Where the state of things goes.

    Args:
        console: standard output.
        as_json: an object a line, for each change.
    """

    def __init__(self, console: Console, *, as_json: bool) -> None:
        self._console = console
        self._as_json = as_json
        self._live: Live | None = None
        self._told: dict[str, str] = {}
        self._last: Any = None

    @contextmanager
    def open(self) -> Iterator[None]:
        """The time in which something is shown; the last table stays on the terminal."""
        if self._console.is_terminal and not self._as_json:
            self._live = Live(console=self._console, auto_refresh=False)
        with self._live or nullcontext():
            yield

    def show(self, table: RenderableType, lines: Iterable[_Line], data: Any) -> None:
        """Show how things stand.

        Args:
            table: for a terminal.
            lines: elsewhere: what each is about, and its line, printed when it has changed.
            data: for JSON: a model, or plain values.
        """
        if self._as_json:
            self._show_json(data)
        elif self._live is not None:
            self._live.update(table, refresh=True)
        else:
            for about, line in lines:
                if self._told.get(about) != line:
                    self._told[about] = line
                    typer.echo(line)

    def _show_json(self, data: Any) -> None:
        if data == self._last:
            return
        self._last = data
        if isinstance(data, list):
            typer.echo(json.dumps(data))
        else:
            typer.echo(data.model_dump_json())


def scene_lines(scene: Scene) -> Iterator[_Line]:
    """A line for each trajectory that has begun, then one for the scene itself."""
    for item in scene.trajectories:
        if item.status.value not in ("blocked", "queued"):
            step = tables.step_of(item)
            reason = f": {item.error.detail}" if item.error else ""
            yield item.id, f"{item.id} {item.status.value}{step and ' ' + step}{reason}"
    ahead = scene.queue_position
    waits = "" if ahead is None else f" {ahead} scenes ahead"
    reason = f": {scene.error.detail}" if scene.error else ""
    yield "", f"scene {scene.id} {scene.status.value} {scene.progress:.0%}{waits}{reason}"


def summary_line(row: SceneSummary) -> _Line:
    """A line for a scene among others."""
    return row.id, f"{row.id} {row.name} {row.status.value} {row.progress:.0%}"


def _exit_code(states: Iterable[SceneStatus]) -> ExitCode:
    ended = set(states)
    if SceneStatus.FAILED in ended:
        return ExitCode.SCENE_FAILED
    return ExitCode.CANCELLED if SceneStatus.CANCELLED in ended else ExitCode.OK
