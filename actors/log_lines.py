"""The project's log lines: which scene, trajectory and attempt a line is about, and its form.

Owns the ids of what is being worked on, a context variable that threads and tasks inherit, and
setting up logging in a process of the service. Ids go from process to process in the messages that
there are. Nothing happens on import: a process sets its logging up when its actor starts.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

# The packages whose lines these are.
OUR_LOGGERS = ("worldstereo", "actors", "cluster", "configs", "deployments")

ID_FIELDS = ("scene", "trajectory", "attempt")

_ids: ContextVar[dict[str, str]] = ContextVar("_ids", default={})  # noqa: B039 - never changed


@dataclass(frozen=True)
class LogOptions:
    """How lines look and which are written."""

    format: Literal["text", "json"] = "text"
    level: str = "info"


@contextmanager
def log_ids(
    *, scene: str | None = None, trajectory: str | None = None, attempt: str | None = None
) -> Iterator[None]:
    """What is logged in the block is about these; None leaves what an outer block said."""
    given = {"scene": scene, "trajectory": trajectory, "attempt": attempt}
    token = _ids.set(_ids.get() | {name: value for name, value in given.items() if value})
    try:
        yield
    finally:
        _ids.reset(token)


def set_log_ids(scene: str, trajectory: str, attempt: str) -> None:
    """The same for the rest of this task, and those that it starts.

    For a generator of messages, whose last step may be taken by another task than its first.
    """
    _ids.set({"scene": scene, "trajectory": trajectory, "attempt": attempt})


def current_ids() -> dict[str, str]:
    """Ids of what is being worked on here: some of scene, trajectory, attempt."""
    return dict(_ids.get())


def set_up_logging(part: str, options: LogOptions | None) -> None:
    """Send the project's lines of this process to standard error, which Ray keeps in its logs.

    Args:
        part: what this process is, for every line.
        options: None leaves logging as it is.
    """
    if options is None:
        return
    handler = logging.StreamHandler()
    handler.addFilter(_WithIds(part))
    handler.setFormatter(JsonFormatter() if options.format == "json" else TextFormatter())
    for name in OUR_LOGGERS:
        ours = logging.getLogger(name)
        ours.handlers[:] = [handler]
        ours.setLevel(options.level.upper())
        ours.propagate = False


class _WithIds(logging.Filter):
    """Gives each line the ids of the moment when it was logged."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def filter(self, record: logging.LogRecord) -> bool:
        record.part = self._part
        record.ids = current_ids()
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (seconds since the epoch), level, logger, part, message, ids.

    A line about an error has its class as ``error``, and the traceback where there is one.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without a newline in it."""
        line: dict[str, object] = {
            "ts": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "part": getattr(record, "part", None),
            "message": record.getMessage(),
        }
        line |= getattr(record, "ids", {})
        if hasattr(record, "error"):
            line["error"] = record.error
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """The same for people: time (UTC), level, part, message, then the ids."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(part)s: %(message)s%(about)s")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """The line; an exception's traceback follows it."""
        ids: dict[str, str] = getattr(record, "ids", {})
        record.about = "".join(f" {name}={value}" for name, value in ids.items())
        return super().format(record)
