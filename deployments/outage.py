"""A store that is away for a while: told apart from a broken request, logged once, waited for.

Away is what passes by itself or by an operator's hand: a server that is stopped, restarted or cut
off, a file that another process has locked, a disk that is full. Whatever was asked meanwhile did
not happen, or its answer was lost; so only calls that may be repeated are repeated here.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from deployments.errors import StoreAway

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

# Waits between two tries, seconds: doubled from the first to the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 2.0

# SQLite's primary result codes: locked, no space, a disk that fails or is read only.
_SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)

# PostgreSQL's classes of errors: connection, resources (a full disk), an operator's hand, system.
_SQLSTATE_CLASSES = frozenset({"08", "53", "57", "58"})
# Serialization, deadlock, lock timeout, a transaction that idled, a server that only reads.
_SQLSTATES = frozenset({"40001", "40P01", "55P03", "25P03", "25006"})


def is_away(error: SQLAlchemyError) -> bool:
    """Whether the database could not do it now, rather than not at all."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _SQLITE_AWAY
    sqlstate = getattr(error.orig, "sqlstate", None)
    if sqlstate is None:  # no answer came
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return sqlstate[:2] in _SQLSTATE_CLASSES or sqlstate in _SQLSTATES


class Outage:
    """Notes when a store is away; its beginning and its end are logged, not each call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since: float | None = None  # monotonic seconds
        self._ended_at = float("-inf")
        self._by_write = False

    @property
    def lasts(self) -> bool:
        """Whether the last try that could have shown the end of an outage did not."""
        return self._since is not None

    @property
    def over_for_s(self) -> float:
        """Seconds since the last outage: 0 while one lasts, infinite where there was none."""
        return 0.0 if self.lasts else time.monotonic() - self._ended_at

    @contextmanager
    def watched(self, *, writes: bool) -> Iterator[None]:
        """Raise ``StoreAway`` for a database error in the block that means so.

        Args:
            writes: whether the block writes; on a full disk, reading says nothing about it.
        """
        try:
            yield
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            self._begin(error, writes)
            raise StoreAway(
                "the store does not answer, or takes no writes",
                fix="try again: nothing that was accepted is lost",
            ) from error
        self._end(writes)

    @contextmanager
    def writing(self, engine: Engine) -> Iterator[Connection]:
        """One transaction that writes, watched."""
        with self.watched(writes=True), engine.execution_options(writes=True).begin() as connection:
            yield connection
            if self.lasts:  # a full disk takes a transaction that changes nothing: this one does
                connection.execute(text("UPDATE alembic_version SET version_num = version_num"))

    def _begin(self, error: SQLAlchemyError, writes: bool) -> None:
        with self._lock:
            first, self._by_write = self._since is None, self._by_write or writes
            if first:
                self._since = time.monotonic()
        if first:
            reason = getattr(error, "orig", None) or error
            logger.warning("the store is away, work on it pauses: %s", str(reason).strip())

    def _end(self, writes: bool) -> None:
        with self._lock:
            since = self._since
            if since is None or (self._by_write and not writes):
                return
            self._since, self._by_write = None, False
            self._ended_at = time.monotonic()
        logger.warning("the store is back after %.1f s", self._ended_at - since)


async def patiently(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the store in a thread, again and again while it is away.

    Args:
        call: one that may be repeated: a question, or a write of whoever holds the scene's lease.
        args, kwargs: its arguments.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except StoreAway:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def wait_for_store(opening: Callable[[Outage], T], limit_s: float) -> T:
    """Open a store that may be away at first; blocks.

    Args:
        opening: opens it; the outage is the same at each try, so that the store which is opened at
            last knows of it.
        limit_s: how long it is tried, seconds.

    Raises:
        StoreAway: it is still away after ``limit_s``.
    """
    outage = Outage()
    end = time.monotonic() + limit_s
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return opening(outage)
        except StoreAway as error:
            if time.monotonic() >= end:
                raise
            logger.debug("waiting for the store: %s", error.__cause__)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
