"""API keys: what one is, what it allows, and how a secret that was sent is compared.

A key is ``ws_<id>_<secret>``. The id names it in lists and owns its scenes; of the secret the
store has the SHA-256 alone, which is enough since it is 32 random bytes and no password.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Literal, get_args

from deployments.errors import PermissionDenied

# read: one's own scenes and what the server offers; write: submit, cancel, delete;
# admin: both, and everybody's scenes.
Scope = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_KEY = re.compile(r"ws_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
# No secret has this hash.
_NO_HASH = "0" * 64


@dataclass(frozen=True)
class Caller:
    """Who sends a request, and what this one may do.

    Attributes:
        owner: id of the key, which owns the scenes that come with it; "" where none is asked for.
        scopes: what may be done.
        max_queued: scenes of this owner that may wait; None: no limit of its own.
        requests_per_minute: None: no limit.
        max_priority: highest priority that a scene may be sent with; None: any.
    """

    owner: str
    scopes: frozenset[Scope]
    max_queued: int | None = None
    requests_per_minute: int | None = None
    max_priority: int | None = None

    @property
    def sees_all(self) -> bool:
        """Whether other owners' scenes are there for this caller."""
        return "admin" in self.scopes

    def sees(self, owner: str) -> bool:
        """Whether the scenes of this owner are there for this caller."""
        return self.sees_all or owner == self.owner

    def check_scope(self, needed: Scope) -> None:
        """PermissionDenied where the key does not allow this."""
        if needed not in self.scopes and not self.sees_all:
            raise PermissionDenied(
                "the key does not allow this",
                where="Authorization",
                got=f"scopes {', '.join(sorted(self.scopes))}",
                allowed=f"{needed} or admin",
                fix="use a key that has the scope: `worldstereo keys create --scope`",
            )

    def check_priority(self, priority: int) -> None:
        """PermissionDenied where the key does not allow a scene of this priority."""
        if self.max_priority is not None and priority > self.max_priority:
            raise PermissionDenied(
                "the key does not allow this priority",
                where="parameters: priority",
                got=str(priority),
                allowed=f"at most {self.max_priority}",
            )


# Where no key is asked for, everybody may do everything.
ANYBODY = Caller(owner="", scopes=frozenset(SCOPES))


@dataclass(frozen=True)
class ApiKey:
    """A key as the store knows it; times are seconds since the epoch.

    ``old_secret_sha256`` is the secret before the last rotation, good until ``old_secret_until``.
    """

    id: str
    name: str
    secret_sha256: str
    scopes: tuple[Scope, ...]
    max_queued: int | None
    requests_per_minute: int | None
    max_priority: int
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    old_secret_sha256: str | None
    old_secret_until: float | None

    def usable(self, now: float) -> bool:
        """Whether the key is neither revoked nor past its time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def opened_by(self, secret_sha256: str, now: float) -> bool:
        """Whether this is the hash of the key's secret, or of the one before within its grace."""
        old = self.old_secret_sha256 or _NO_HASH
        is_new = hmac.compare_digest(self.secret_sha256, secret_sha256)
        is_old = hmac.compare_digest(old, secret_sha256)
        return is_new or (is_old and now < (self.old_secret_until or 0))

    def caller(self) -> Caller:
        """Who sends a request with this key."""
        return Caller(
            owner=self.id,
            scopes=frozenset(self.scopes),
            max_queued=self.max_queued,
            requests_per_minute=self.requests_per_minute,
            max_priority=self.max_priority,
        )


def new_id() -> str:
    """An id that no other key has."""
    return secrets.token_hex(8)


def new_secret() -> str:
    """A secret of 32 random bytes, in base64url."""
    return secrets.token_urlsafe(32)


def key_text(key_id: str, secret: str) -> str:
    """The key as its user writes it."""
    return f"ws_{key_id}_{secret}"


def key_parts(text: str) -> tuple[str, str] | None:
    """(id, SHA-256 of the secret) of a key as it was sent; None when it is none."""
    found = _KEY.fullmatch(text)
    return (found[1], sha256_of_secret(found[2])) if found else None


def sha256_of_secret(secret: str) -> str:
    """What the store keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()
