"""The two clients: connections, repeated tries and what belongs to no scene.

Requests and answers are described in ``calls``, when to repeat in ``retry``; scenes are in
``scenes``. Both clients do the same; only the waiting differs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from types import TracebackType
from typing import Any, TypeVar

import httpx

from worldstereo_client import calls
from worldstereo_client.errors import ParameterError
from worldstereo_client.retry import FAILURES, Attempts, RetryPolicy
from worldstereo_client.scenes import AsyncScenes, Scenes
from worldstereo_client.schemas import Health, ModelInfo

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
API_KEY_VARIABLE = "WORLDSTEREO_API_KEY"


class Client:
    """A connection to a WorldStereo Cluster server; close it, or use it in ``with``.

    It may be used from several threads.

    Args:
        url: the server's root, for instance ``http://127.0.0.1:8000``.
        timeout_s: seconds without any byte after which a call fails (then it is tried again).
        retries: how often and how patiently to try again.
        headers: sent with every request.
        api_key: of a server that asks for one; None: that of the variable WORLDSTEREO_API_KEY of
            the environment, if there is one.

    Raises:
        ParameterError: the address is no http or https URL, or the key cannot be sent.

    Example::

        with Client("http://127.0.0.1:8000") as client:
            job = client.scenes.submit("scenes/kitchen", variant="worldstereo-memory-dmd")
            job.wait(progress=True)
            job.download("outputs/kitchen")
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 30.0,
        retries: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
    ) -> None:
        self._http = httpx.Client(**_settings(url, timeout_s, headers, api_key))
        self._retries = retries or RetryPolicy()
        self.scenes = Scenes(self)

    @property
    def url(self) -> str:
        """The server's root."""
        return str(self._http.base_url)

    def models(self) -> list[ModelInfo]:
        """The variants that the server offers."""
        return self.send(calls.list_models())

    def health(self) -> Health:
        """Whether the server's process answers."""
        return self.send(calls.health("/healthz"))

    def ready(self) -> Health:
        """Whether a clip could be generated now; ``status`` and ``reason`` say so."""
        return self.send(calls.health("/readyz"))

    def send(self, call: calls.Call[T]) -> T:
        """Send a call, again where that may help, and parse its answer."""

        def once() -> T:
            response = self._http.send(call.request(self._http))
            return call.parse(call.checked(response))

        return self.repeat(once, self.attempts(call))

    @contextmanager
    def open(self, call: calls.Call[T]) -> Iterator[httpx.Response]:
        """Send a call once; the body of its answer is left to be streamed."""
        response = self._http.send(call.request(self._http), stream=True)
        try:
            if not call.understands(response):
                response.read()
            yield call.checked(response)
        finally:
            response.close()

    def repeat(self, once: Callable[[], T], attempts: Attempts) -> T:
        """Try until it succeeds or ``attempts`` raises what it failed with."""
        while True:
            try:
                return once()
            except FAILURES as failure:
                pause_s = attempts.after(failure)
            time.sleep(pause_s)

    def attempts(self, call: calls.Call[T]) -> Attempts:
        """A fresh count of tries for a call."""
        return Attempts(self._retries, f"{call.method} {self.url.rstrip('/')}{call.path}")

    def close(self) -> None:
        """Close the connections; calling it twice is harmless."""
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient:
    """The same as ``Client`` for asyncio.

    Args:
        url: the server's root, for instance ``http://127.0.0.1:8000``.
        timeout_s: seconds without any byte after which a call fails (then it is tried again).
        retries: how often and how patiently to try again.
        headers: sent with every request.
        api_key: of a server that asks for one; None: that of the variable WORLDSTEREO_API_KEY of
            the environment, if there is one.

    Raises:
        ParameterError: the address is no http or https URL, or the key cannot be sent.

    Example::

        async with AsyncClient("http://127.0.0.1:8000") as client:
            job = await client.scenes.submit("scenes/kitchen")
            async for event in job.events():
                print(event)
            await job.download("outputs/kitchen")
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 30.0,
        retries: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        api_key: str | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(**_settings(url, timeout_s, headers, api_key))
        self._retries = retries or RetryPolicy()
        self.scenes = AsyncScenes(self)

    @property
    def url(self) -> str:
        """The server's root."""
        return str(self._http.base_url)

    async def models(self) -> list[ModelInfo]:
        """The variants that the server offers."""
        return await self.send(calls.list_models())

    async def health(self) -> Health:
        """Whether the server's process answers."""
        return await self.send(calls.health("/healthz"))

    async def ready(self) -> Health:
        """Whether a clip could be generated now; ``status`` and ``reason`` say so."""
        return await self.send(calls.health("/readyz"))

    async def send(self, call: calls.Call[T]) -> T:
        """Send a call, again where that may help, and parse its answer."""

        async def once() -> T:
            response = await self._http.send(call.request(self._http))
            return call.parse(call.checked(response))

        return await self.repeat(once, self.attempts(call))

    @asynccontextmanager
    async def open(self, call: calls.Call[T]) -> AsyncIterator[httpx.Response]:
        """Send a call once; the body of its answer is left to be streamed."""
        response = await self._http.send(call.request(self._http), stream=True)
        try:
            if not call.understands(response):
                await response.aread()
            yield call.checked(response)
        finally:
            await response.aclose()

    async def repeat(self, once: Callable[[], Awaitable[T]], attempts: Attempts) -> T:
        """Try until it succeeds or ``attempts`` raises what it failed with."""
        while True:
            try:
                return await once()
            except FAILURES as failure:
                pause_s = attempts.after(failure)
            await asyncio.sleep(pause_s)

    def attempts(self, call: calls.Call[T]) -> Attempts:
        """A fresh count of tries for a call."""
        return Attempts(self._retries, f"{call.method} {self.url.rstrip('/')}{call.path}")

    async def aclose(self) -> None:
        """Close the connections; calling it twice is harmless."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()


def _settings(
    url: str, timeout_s: float, headers: Mapping[str, str] | None, api_key: str | None
) -> dict[str, Any]:
    """What both httpx clients are made with."""
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ParameterError("not a URL", where="url", got=repr(url)) from error
    if base.scheme not in ("http", "https") or not base.host:
        raise ParameterError(
            "not the address of a server",
            where="url",
            got=repr(url),
            allowed="http://HOST:PORT or https://HOST",
        )
    agent = f"worldstereo-client/{version('worldstereo-client')}"
    return {
        "base_url": base,
        "timeout": httpx.Timeout(timeout_s, connect=min(timeout_s, 5.0)),
        "headers": {"User-Agent": agent, **_authorization(api_key), **(headers or {})},
        # A proxy of the environment cannot reach this machine's own loopback.
        "trust_env": base.host not in ("127.0.0.1", "localhost", "::1"),
    }


def _authorization(api_key: str | None) -> dict[str, str]:
    key = (os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key).strip()
    if not key:
        return {}
    if not key.isascii() or not key.isprintable() or " " in key:
        # The key itself is not shown: messages end up in logs.
        raise ParameterError(
            "unusable as a header", where="api_key", allowed="ws_..., visible ASCII characters"
        )
    return {"Authorization": f"Bearer {key}"}
