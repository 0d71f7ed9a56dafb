"""Process trees by /proc: who is below whom, and ending them by id.

A process id is told from a later one of the same number by its start time. Where there is no
/proc nothing is found, and nothing is ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Process:
    """One process: its id and its start time in clock ticks since the machine started."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """Whether this very process still runs; one that only waits to be reaped does not."""
        state = _state(self.pid)
        return state is not None and state.started == self.started and not state.zombie


@dataclass(frozen=True)
class _State:
    parent: int
    started: int
    zombie: bool


def descendants(pid: int) -> list[Process]:
    """The living processes below ``pid``, parents before their children."""
    children: dict[int, list[Process]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        state = _state(int(entry.name))
        if state is not None and not state.zombie:
            process = Process(int(entry.name), state.started)
            children.setdefault(state.parent, []).append(process)
    found: list[Process] = []
    queue = [pid]
    while queue:
        below = children.get(queue.pop(0), [])
        found += below
        queue += [process.pid for process in below]
    return found


def is_running(pid: int) -> bool:
    """Whether a process of this id runs; one that only waits to be reaped does not."""
    state = _state(pid)
    return state is not None and not state.zombie


def end(processes: Sequence[Process], *, grace_s: float) -> None:
    """Ask these processes to end, and kill those that still run after ``grace_s`` seconds."""
    for number, wait_s in ((signal.SIGTERM, grace_s), (signal.SIGKILL, grace_s)):
        left = [process for process in processes if process.alive]
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)
        deadline = time.monotonic() + wait_s
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = [process for process in left if process.alive]


def _state(pid: int) -> _State | None:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in parentheses may hold anything, so the fields are counted from its end.
    fields = text.rpartition(")")[2].split()
    return _State(parent=int(fields[1]), started=int(fields[19]), zombie=fields[0] in "ZX")
