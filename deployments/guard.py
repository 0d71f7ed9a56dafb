"""Asks each request for its API key, before anything of it is read, and keeps the key's rate.

It stands in front of all routes, so that one that is added later is guarded as well. What a caller
may see of what is there is the routes' part: they ask for ``CallerOf``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments import http_errors
from deployments.errors import AuthenticationError, RateLimited
from deployments.key_store import KeyStore
from deployments.keys import ANYBODY, Caller
from worldstereo.errors import WorldStereoError

# Probes come without a key and learn nothing of scenes; the description is the same everywhere.
OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect"})

_READING = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """ASGI middleware: requests without a good key are answered here.

    Args:
        app: what is guarded.
        keys: all keys.
        clock: seconds, for rates.
    """

    def __init__(
        self, app: ASGIApp, keys: KeyStore, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._app = app
        self._keys = keys
        self._rates = Rates(clock)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        if scope["type"] == "http" and path not in OPEN_PATHS:
            request = Request(scope)
            try:
                scope.setdefault("state", {})["caller"] = await self._admit(request)
            except WorldStereoError as error:
                await http_errors.answer(error, request)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, request: Request) -> Caller:
        caller = await asyncio.to_thread(self._keys.caller_of, _bearer(request))
        self._rates.take(caller)
        caller.check_scope("read" if request.method in _READING else "write")
        return caller


async def caller_of(request: Request) -> Caller:
    """Who sends this request; anybody where no key is asked for."""
    caller: Caller = getattr(request.state, "caller", ANYBODY)
    return caller


CallerOf = Annotated[Caller, Depends(caller_of)]


class Rates:
    """One token bucket a key, in this process: it holds the requests of a minute, and refills.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and when they were counted

    def take(self, caller: Caller) -> None:
        """Count one request.

        Raises:
            RateLimited: there were too many; it says when the next one is taken.
        """
        most = caller.requests_per_minute
        if most is None:
            return
        now = self._clock()
        tokens, at = self._buckets.get(caller.owner, (float(most), now))
        tokens = min(float(most), tokens + (now - at) * most / 60)
        if tokens < 1:
            self._buckets[caller.owner] = tokens, now
            limited = RateLimited(
                "the key has sent too many requests",
                where="Authorization",
                allowed=f"{most} a minute",
                fix="go on after the time that Retry-After gives",
            )
            limited.retry_after_s = (1 - tokens) * 60 / most
            raise limited
        self._buckets[caller.owner] = tokens - 1, now


def _bearer(request: Request) -> str:
    sent = request.headers.getlist("authorization")
    if len(sent) != 1:
        raise AuthenticationError(
            "an API key is needed" if not sent else "more than one Authorization header",
            where="Authorization",
            got="nothing" if not sent else f"{len(sent)} headers",
            allowed="Bearer ws_..., a key that `worldstereo keys create` printed",
            fix="set WORLDSTEREO_API_KEY, or name --api-key",
        )
    scheme, _, text = sent[0].partition(" ")
    if scheme.lower() != "bearer":
        raise AuthenticationError(
            "not a Bearer key", where="Authorization", allowed="Bearer ws_..."
        )
    return text.strip()
