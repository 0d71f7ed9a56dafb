"""Another program as part of a stage: its lines as they come, its end, and nothing left of it.

Owns the process group and the pipe. A program may start others in sessions of their own (torchrun
does), which no signal to its group reaches: all of them inherit a mark in their environment, and
are found by it where there is a /proc. What the program is, and what its lines mean, is others'.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

MARK = "WORLDSTEREO_PROGRAM"
# Lines that are kept for whoever asks why it failed.
KEPT_LINES = 30
# How often it is asked whether to stop.
POLL_S = 0.1
# Time that all processes get to end by themselves when they are told to.
GRACE_S = 0.4
# How long it is waited for processes that were killed to be gone.
KILL_S = 10.0
_LONGEST_LINE = 64 * 1024
# Of a project that is not this one: they would make it import other packages.
_NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME")
HowEnded = Literal["ended", "stopped", "late"]
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class ProgramEnd:
    """How a program ended.

    Attributes:
        how: ``ended`` by itself, ``stopped`` on request, or ``late`` when its time was over.
        status: its exit status, below 0 for a signal.
        last_lines: the last that it wrote.
    """

    how: HowEnded
    status: int
    last_lines: tuple[str, ...]


def run_program(
    command: Sequence[str],
    *,
    work: str,
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    on_line: Callable[[str], None],
    stop: Callable[[], bool],
) -> ProgramEnd:
    """Run a program to its end; when this returns or raises, none of its processes is left.

    Args:
        command: the program and its arguments.
        work: what it is run for, one at a time on a machine: what still runs for the same work,
            since the process that started it was killed, is ended first.
        folder: that it works in.
        environment: variables beside those of this process, of which the ones that say where
            Python finds packages are left out.
        timeout_s: longest time.
        on_line: is told each line of what it writes, on both outputs, without line ends and
            colours; a carriage return ends a line too.
        stop: is asked every tenth of a second.

    Raises:
        OSError: the program cannot be started.
    """
    mark = hashlib.sha256(work.encode()).hexdigest()
    _kill_marked(mark)
    inherited = {name: text for name, text in os.environ.items() if name not in _NOT_INHERITED}
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**inherited, **environment, MARK: mark},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    last: deque[str] = deque(maxlen=KEPT_LINES)
    deadline = time.monotonic() + timeout_s
    how: HowEnded = "ended"
    try:
        for line in _lines(process.stdout, lambda: process.poll() is None):
            if line:
                last.append(line)
                on_line(line)
            if stop():
                how = "stopped"
            elif time.monotonic() > deadline:
                how = "late"
            if how != "ended":
                break
    finally:
        _end(process, mark)
        process.stdout.close()
    return ProgramEnd(how, process.returncode, tuple(last))


def _lines(pipe: IO[bytes], running: Callable[[], bool]) -> Iterator[str]:
    """Lines as they come, and an empty one at least every ``POLL_S`` seconds.

    Ends when the program has: one that it leaves behind may hold the pipe for ever.
    """
    held = b""
    with selectors.DefaultSelector() as ready:
        ready.register(pipe, selectors.EVENT_READ)
        while True:
            over = not running()
            read = b""
            if ready.select(0 if over else POLL_S):
                read = os.read(pipe.fileno(), _LONGEST_LINE)
                if not read and not over:  # it has closed its outputs and goes on
                    time.sleep(POLL_S)
            *whole, held = re.split(rb"[\r\n]+", held + read)
            if (over and not read) or len(held) > _LONGEST_LINE:
                whole, held = [*whole, held], b""
            yield from filter(None, map(_text, whole))
            if over and not read:
                return
            yield ""


def _text(line: bytes) -> str:
    return _ESCAPES.sub(b"", line).decode(errors="replace").rstrip()


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Have every process that is left end, and kill those that do not."""
    if process.poll() is None:
        _send(os.killpg, process.pid, signal.SIGTERM)
    for pid in _marked(mark):
        _send(os.kill, pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_S
    while time.monotonic() < deadline and (process.poll() is None or _marked(mark)):
        time.sleep(0.02)
    if process.poll() is None:
        _send(os.killpg, process.pid, signal.SIGKILL)
    process.wait()
    _kill_marked(mark)


def _kill_marked(mark: str) -> None:
    # What was just being started is found in the next round; a driver may keep one from ending.
    deadline = time.monotonic() + KILL_S
    while (marked := _marked(mark)) and time.monotonic() < deadline:
        for pid in marked:
            _send(os.kill, pid, signal.SIGKILL)
        time.sleep(0.02)


def _send(send: Callable[[int, int], None], pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended meanwhile
        send(pid, number)


def _marked(mark: str) -> list[int]:
    """Other processes whose environment holds the mark (Linux; elsewhere none)."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        # Another user's, or ended meanwhile; one that waits to be reaped has no environment.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return [pid for pid in found if pid != os.getpid()]
