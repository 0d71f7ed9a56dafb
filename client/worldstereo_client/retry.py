"""When a call is tried again, how long to wait before it, and what is raised in the end.

Shared by the synchronous and the asynchronous client; it sleeps nowhere itself. Every call of this
API may be repeated: reads by nature, a cancel because it is idempotent, a submit because it always
carries an idempotency key.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeAlias

import httpx

from worldstereo_client.errors import (
    IntegrityError,
    ServerTimeout,
    ServerUnreachable,
    TransportError,
    UnexpectedResponse,
    WorldStereoError,
    error_from_problem,
)
from worldstereo_client.schemas import Problem

logger = logging.getLogger("worldstereo_client")

RETRIED_STATUS = frozenset({429, 502, 503, 504, 507})
RETRIED_ERRORS = (
    httpx.TimeoutException,
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ProxyError,
)
# A pause of this length is worth a warning to whoever waits.
TOLD_PAUSE_S = 5.0
# What a try may end with that another one may heal: ``Attempts.after`` decides.
FAILURES = (httpx.HTTPError, IntegrityError, ServerUnreachable)
Failure: TypeAlias = httpx.HTTPError | IntegrityError | ServerUnreachable


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how patiently a call is repeated.

    Args:
        attempts: tries of one call in all; 1 never repeats. A stream that delivered something
            starts to count anew.
        first_delay_s: wait before the second try; doubles with each further one.
        longest_delay_s: upper bound of that wait.
        longest_retry_after_s: a server that asks for a longer pause (Retry-After) gets no
            further try; its error is raised at once.
    """

    attempts: int = 6
    first_delay_s: float = 0.5
    longest_delay_s: float = 8.0
    longest_retry_after_s: float = 120.0

    def delay_s(self, failures: int) -> float:
        """Seconds to wait after this many failures: exponential, the upper half at random."""
        # The exponent is bounded because floats overflow long before a patient caller gives up.
        bound = min(self.longest_delay_s, self.first_delay_s * 2.0 ** min(failures - 1, 32))
        return bound * random.uniform(0.5, 1.0)


class Attempts:
    """The tries of one call: told about each failure, it says how long to wait or raises.

    Args:
        policy: how often to try.
        where: method and address, for the error that is raised in the end.
    """

    def __init__(self, policy: RetryPolicy, where: str) -> None:
        self._policy, self._where = policy, where
        self._failures = 0
        self._mismatches = 0

    def progressed(self) -> None:
        """Something new arrived: the next failure counts as the first."""
        self._failures = 0

    def after(self, failure: Failure) -> float:
        """Seconds to wait before the next try.

        Args:
            failure: what the try ended with. The body of an error response has been read.

        Raises:
            WorldStereoError: there is no further try; this is what the call failed with.
        """
        if isinstance(failure, httpx.HTTPStatusError):
            pause_s = self._after_response(failure.response)
        elif isinstance(failure, httpx.HTTPError):
            error = self._transport_error(failure)
            if self._is_last() or not isinstance(failure, RETRIED_ERRORS):
                raise error from failure
            pause_s = self._pause_s()
        else:
            # Damage on the way is rare and damage in storage stays: one more try tells them apart.
            self._mismatches += isinstance(failure, IntegrityError)
            if self._is_last() or self._mismatches > 1:
                raise failure
            pause_s = self._pause_s()
        level = logging.WARNING if pause_s >= TOLD_PAUSE_S else logging.INFO
        logger.log(level, "%s: %s; trying again in %.1f s", self._where, failure, pause_s)
        return pause_s

    def _after_response(self, response: httpx.Response) -> float:
        wanted_s = retry_after_s(response) or 0.0
        patient = wanted_s <= self._policy.longest_retry_after_s
        if response.status_code not in RETRIED_STATUS or self._is_last() or not patient:
            raise error_from_response(response) from None
        return max(self._pause_s(), wanted_s)

    def _is_last(self) -> bool:
        return self._failures + 1 >= self._policy.attempts

    def _pause_s(self) -> float:
        self._failures += 1
        return self._policy.delay_s(self._failures)

    def _transport_error(self, error: httpx.HTTPError) -> TransportError:
        got = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServerUnreachable(
                "cannot connect to the server",
                where=self._where,
                got=got,
                fix="start one with `worldstereo serve`, or give the address of one that runs",
            )
        if isinstance(error, httpx.TimeoutException):
            return ServerTimeout("the server did not answer in time", where=self._where, got=got)
        if isinstance(error, RETRIED_ERRORS):
            return ServerUnreachable("the connection was lost", where=self._where, got=got)
        return UnexpectedResponse("no answer of this API", where=self._where, got=got)


def error_from_response(response: httpx.Response) -> WorldStereoError:
    """The exception that an error response (its body read) stands for."""
    try:
        return error_from_problem(Problem.model_validate_json(response.content))
    except ValueError:
        body = " ".join(response.text.split())
        return UnexpectedResponse(
            "an error that is not of this API",
            where=f"{response.request.method} {response.request.url}",
            got=f"HTTP {response.status_code} {body[:200]!r}",
            fix="is this the address of a WorldStereo server?",
        )


def retry_after_s(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header in either of its forms (RFC 9110, 10.2.3); None without."""
    text = response.headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
