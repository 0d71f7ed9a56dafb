"""The store's table of API keys: made, found, rotated, revoked.

Owns every write to it. What a key means is keys.py's; asking requests for one is guard.py's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from deployments.errors import AuthenticationError
from deployments.keys import (
    ApiKey,
    Caller,
    Scope,
    key_parts,
    key_text,
    new_id,
    new_secret,
    sha256_of_secret,
)
from deployments.migration import migrate
from deployments.outage import Outage
from deployments.tables import api_keys, connect
from worldstereo.errors import ParameterError

# Compared with where there is no key, so that this takes as long as a wrong secret does.
_NOBODY = ApiKey("", "", "0" * 64, (), None, None, 0, 0.0, None, None, None, None)


class KeyStore:
    """The keys in one database; any number of processes may open it.

    Args:
        url: SQLAlchemy URL of the store; its tables are made when they are missing.
        clock: seconds since the epoch.

    Raises:
        StoreAway: by every call: the database does not answer.
    """

    def __init__(self, url: str, clock: Callable[[], float] = time.time) -> None:
        self._engine = connect(url)
        self._clock = clock
        self._outage = Outage()
        with self._transaction(writes=True) as connection:
            migrate(connection)

    def close(self) -> None:
        """Close all connections; twice is harmless."""
        self._engine.dispose()

    def create(
        self,
        name: str,
        scopes: Collection[Scope],
        *,
        expires_in_s: float | None = None,
        max_queued: int | None = None,
        requests_per_minute: int | None = None,
        max_priority: int = 0,
    ) -> tuple[ApiKey, str]:
        """Make a key.

        Args:
            name: whom or what it is for.
            scopes: at least one.
            expires_in_s: None: never.
            max_queued, requests_per_minute: None: no limit of its own.
            max_priority: highest priority that a scene may be sent with.

        Returns:
            The key, and its text with the secret, which cannot be had again.

        Raises:
            ParameterError: no scope, or a name that is empty or too long.
        """
        if not scopes or not 1 <= len(name) <= 128:
            raise ParameterError(
                "a key needs a name and a scope",
                where="name, scopes",
                got=f"{name[:150]!r}, {', '.join(scopes) or 'none'}",
                allowed="1 to 128 characters; at least one scope",
            )
        secret, now = new_secret(), self._clock()
        key_id = new_id()
        values = {
            "id": key_id,
            "name": name,
            "secret_sha256": sha256_of_secret(secret),
            "scopes": sorted(set(scopes)),
            "max_queued": max_queued,
            "requests_per_minute": requests_per_minute,
            "max_priority": max_priority,
            "created_at": now,
            "expires_at": None if expires_in_s is None else now + expires_in_s,
        }
        with self._transaction(writes=True) as connection:
            connection.execute(insert(api_keys).values(values))
        return self.key(key_id), key_text(key_id, secret)

    def all_keys(self) -> list[ApiKey]:
        """All keys, oldest first, those that are no longer good included."""
        with self._transaction() as connection:
            rows = connection.execute(select(api_keys).order_by(api_keys.c.created_at)).all()
        return [_key(row) for row in rows]

    def has_usable(self) -> bool:
        """Whether there is a key that opens the service."""
        return any(key.usable(self._clock()) for key in self.all_keys())

    def key(self, key_id: str) -> ApiKey:
        """The key; ParameterError when there is none."""
        found = self._find(key_id)
        if found is None:
            raise ParameterError(
                "no such key", where="id", got=repr(key_id), fix="`worldstereo keys list` shows all"
            )
        return found

    def rotate(self, key_id: str, grace_s: float) -> tuple[ApiKey, str]:
        """Give a key a new secret; the present one stays good for ``grace_s`` seconds.

        Returns:
            The key, and its text with the new secret, which cannot be had again.

        Raises:
            ParameterError: there is no such key, or it is revoked or past its time.
        """
        found, now, secret = self.key(key_id), self._clock(), new_secret()
        if not found.usable(now):
            raise ParameterError(
                "the key is revoked or past its time", where="id", got=repr(key_id), fix="make one"
            )
        values = {
            "secret_sha256": sha256_of_secret(secret),
            # A third secret would outlive its grace: there are two at most.
            "old_secret_sha256": found.secret_sha256,
            "old_secret_until": now + grace_s,
        }
        self._change(key_id, values)
        return self.key(key_id), key_text(key_id, secret)

    def revoke(self, key_id: str) -> ApiKey:
        """Make a key good for nothing from now on; again changes nothing.

        Raises:
            ParameterError: there is no such key.
        """
        if self.key(key_id).revoked_at is None:
            self._change(key_id, {"revoked_at": self._clock()})
        return self.key(key_id)

    def caller_of(self, text: str) -> Caller:
        """Who sends a request with this key.

        Raises:
            AuthenticationError: it is no key, or one that is wrong, revoked or past its time; the
                message does not tell which.
        """
        parts = key_parts(text)
        found = self._find(parts[0]) if parts else None
        now = self._clock()
        # All is computed whatever is wrong, so that the time tells nothing.
        opened = (found or _NOBODY).opened_by(parts[1] if parts else "", now)
        if found is None or not opened or not found.usable(now):
            raise AuthenticationError(
                "not a key of this server, or no longer",
                where="Authorization",
                allowed="Bearer ws_..., a key that `worldstereo keys create` printed",
            )
        return found.caller()

    @contextmanager
    def _transaction(self, *, writes: bool = False) -> Iterator[Connection]:
        if writes:
            with self._outage.writing(self._engine) as connection:
                yield connection
        else:
            with self._outage.watched(writes=False), self._engine.begin() as connection:
                yield connection

    def _find(self, key_id: str) -> ApiKey | None:
        query = select(api_keys).where(api_keys.c.id == key_id)
        with self._transaction() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else _key(row)

    def _change(self, key_id: str, values: dict[str, Any]) -> None:
        with self._transaction(writes=True) as connection:
            connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(values))


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(**{**row._mapping, "scopes": tuple(row.scopes)})
