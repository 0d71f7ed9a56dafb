"""How far a scene is, shown on a terminal as bars and elsewhere as plain lines."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from worldstereo_client.schemas import Artefact, Event, Scene, TrajectoryStatus

MARKS = {
    TrajectoryStatus.COMPLETED: "[green]done[/]",
    TrajectoryStatus.FAILED: "[red]failed[/]",
    TrajectoryStatus.SKIPPED: "[yellow]skipped[/]",
    TrajectoryStatus.CANCELLED: "[yellow]cancelled[/]",
}


def console_of(progress: bool | Console) -> Console | None:
    """The console that is asked for: standard error for True, none for False."""
    if isinstance(progress, Console):
        return progress
    return Console(stderr=True) if progress else None


@contextmanager
def scene_progress(scene: Scene, progress: bool | Console) -> Iterator[Callable[[Event], None]]:
    """Show a scene's events: yields the function that takes each of them.

    Args:
        scene: the scene as it stands; events from the first on are expected.
        progress: a console, True for standard error, False to show nothing.
    """
    console = console_of(progress)
    if console is None:
        yield lambda event: None
    elif not console.is_terminal:
        yield lambda event: _print_line(console, event)
    else:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[stage]}"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bars:
            yield SceneBars(scene, bars).show


class SceneBars:
    """One bar for the scene and one for each trajectory that is being generated."""

    def __init__(self, scene: Scene, bars: Progress) -> None:
        self._bars = bars
        self._scene = bars.add_task(
            escape(scene.name), total=max(1, len(scene.trajectories)), stage=scene.status.value
        )
        self._tasks: dict[str, TaskID] = {}
        self._ended: set[str] = set()

    def show(self, event: Event) -> None:
        """Bring the bars up to date with one event."""
        if event.type == "scene":
            self._bars.update(self._scene, stage=event.status or "")
        elif event.type == "progress" and not event.trajectory:
            self._bars.update(self._scene, stage=_stage(event))
        elif event.trajectory and event.type == "progress":
            stage = _stage(event)
            self._bars.update(
                self._task(event.trajectory),
                total=event.steps or None,
                completed=event.step or 0,
                stage=stage,
            )
        elif event.trajectory and event.status in MARKS:
            self._end(event.trajectory, TrajectoryStatus(event.status), event)

    def _task(self, trajectory: str) -> TaskID:
        if trajectory not in self._tasks:
            self._tasks[trajectory] = self._bars.add_task(
                f"  {escape(trajectory)}", total=None, stage=""
            )
        return self._tasks[trajectory]

    def _end(self, trajectory: str, status: TrajectoryStatus, event: Event) -> None:
        if trajectory in self._tasks:
            self._bars.remove_task(self._tasks.pop(trajectory))
        # One that is run again after a failure ends more than once.
        self._ended.add(trajectory)
        self._bars.update(self._scene, completed=len(self._ended))
        reason = f": {escape(event.error.detail)}" if event.error else ""
        self._bars.console.print(f"{MARKS[status]} {escape(trajectory)}{reason}", highlight=False)


def _stage(event: Event) -> str:
    """The stage in words, e.g. ``denoise 3 of 4``."""
    return f"{event.stage} {event.step} of {event.steps}" if event.steps else event.stage or ""


def _print_line(console: Console, event: Event) -> None:
    """One line for each change of state; steps are left out, a log would drown in them."""
    if event.type == "progress":
        return
    what = event.trajectory or "scene"
    reason = f": {event.error.detail}" if event.error else ""
    console.print(f"{what} {event.status}{reason}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def download_progress(
    artefacts: Callable[[], list[Artefact]],
    kinds: Collection[str] | None,
    progress: bool | Console,
) -> Iterator[Callable[[Artefact, Path], None] | None]:
    """Show a bar of the files to be fetched: yields the function that is told of each."""
    console = console_of(progress)
    if console is None or not console.is_terminal:
        yield None
        return
    total = sum(1 for item in artefacts() if kinds is None or item.kind in kinds)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} files"),
    )
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("download", total=total)
        yield lambda artefact, path: bars.advance(task)
