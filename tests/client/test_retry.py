"""When a try is repeated, by the clock and by the answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worldstereo_client import RetryPolicy, errors
from worldstereo_client.retry import Attempts, retry_after_s


@given(st.integers(1, 2000), st.floats(0.001, 10), st.floats(0.001, 100))
def test_pauses_grow_to_their_bound_and_vary(failures: int, first: float, longest: float) -> None:
    policy = RetryPolicy(first_delay_s=first, longest_delay_s=longest)
    bound = min(longest, first * 2 ** min(failures - 1, 1000))
    assert bound / 2 <= policy.delay_s(failures) <= bound


def answer(status: int, **headers: str) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://host/x"))


def test_retry_after_in_both_forms() -> None:
    assert retry_after_s(answer(429)) is None
    assert retry_after_s(answer(429, **{"Retry-After": "17"})) == 17
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after_s(answer(429, **{"Retry-After": soon})) or 0) <= 30
    past = format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)
    assert retry_after_s(answer(429, **{"Retry-After": past})) == 0
    assert retry_after_s(answer(429, **{"Retry-After": "soon"})) is None


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (httpx.ConnectError("refused"), errors.ServerUnreachable),
        (httpx.ConnectTimeout("slow"), errors.ServerUnreachable),
        (httpx.ReadTimeout("slow"), errors.ServerTimeout),
        (httpx.RemoteProtocolError("cut"), errors.ServerUnreachable),
        (httpx.ReadError("reset"), errors.ServerUnreachable),
        (errors.ServerUnreachable("ended early"), errors.ServerUnreachable),
    ],
)
def test_lost_connections_are_tried_to_the_end(
    failure: httpx.HTTPError, raised: type[errors.WorldStereoError]
) -> None:
    attempts = Attempts(RetryPolicy(attempts=3), "GET http://host/x")
    assert attempts.after(failure) > 0
    assert attempts.after(failure) > 0
    with pytest.raises(raised):
        attempts.after(failure)
    attempts.progressed()
    assert attempts.after(failure) > 0


@pytest.mark.parametrize(
    "failure", [httpx.UnsupportedProtocol("gopher"), httpx.TooManyRedirects("round and round")]
)
def test_what_no_repetition_heals(failure: httpx.HTTPError) -> None:
    with pytest.raises(errors.UnexpectedResponse):
        Attempts(RetryPolicy(), "GET http://host/x").after(failure)


def test_wrong_bytes_get_one_more_try() -> None:
    attempts = Attempts(RetryPolicy(), "GET http://host/x")
    assert attempts.after(errors.IntegrityError("other bytes")) > 0
    attempts.progressed()
    with pytest.raises(errors.IntegrityError):
        attempts.after(errors.IntegrityError("other bytes"))


def test_a_pause_is_told(caplog: pytest.LogCaptureFixture) -> None:
    attempts = Attempts(RetryPolicy(first_delay_s=0.001), "GET http://host/x")
    attempts.after(httpx.ReadError("reset"))
    assert caplog.records == []
    full = answer(429, **{"Retry-After": "30"})
    attempts.after(httpx.HTTPStatusError("full", request=full.request, response=full))
    assert "trying again in 30.0 s" in caplog.text
