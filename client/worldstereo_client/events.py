"""Where a listener is in a scene's event stream, so that it can go on after a lost connection.

Server-sent events are parsed by httpx-sse; this module knows what the events of a scene mean.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import httpx_sse
import pydantic

from worldstereo_client import calls
from worldstereo_client.errors import UnexpectedResponse, WaitTimeout
from worldstereo_client.schemas import Event, SceneStatus


class EventCursor:
    """The position in one scene's events: what was seen, and whether the scene has ended.

    Args:
        scene_id: the scene.
        after: id of the last event that is already known; 0 for none.
    """

    def __init__(self, scene_id: str, after: int = 0) -> None:
        self.scene_id, self.last_id = scene_id, after
        self.finished = False

    def call(self, deadline: Deadline | None = None) -> calls.Call[None]:
        """The request for everything that was not seen yet; silent no longer than the deadline."""
        timeout_s = calls.EVENTS_TIMEOUT_S
        return calls.scene_events(
            self.scene_id, self.last_id, deadline.limit(timeout_s) if deadline else timeout_s
        )

    def accept(self, message: httpx_sse.ServerSentEvent) -> Event | None:
        """The event of one message, or None for a heartbeat or a repeated one.

        Raises:
            UnexpectedResponse: the message is no event of this API.
        """
        if not message.data:
            return None
        try:
            event = Event.model_validate_json(message.data)
        except pydantic.ValidationError as error:
            raise UnexpectedResponse(
                "a message in the event stream is no event",
                where=f"scene {self.scene_id}",
                got=repr(message.data[:200]),
            ) from error
        if event.id <= self.last_id:
            return None
        self.last_id = event.id
        self.finished = event.type == "scene" and is_terminal(event.status)
        return event


def is_terminal(status: str | None) -> bool:
    """Whether a scene stays in this state; a state that is unknown here is not terminal."""
    return status in [known for known in SceneStatus if known.terminal]


class Deadline:
    """A moment until which to wait.

    Args:
        scene_id: what is waited for, for the error.
        seconds: from now; None waits for ever.
    """

    def __init__(self, scene_id: str, seconds: float | None) -> None:
        self._scene_id, self._seconds = scene_id, seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def limit(self, seconds: float) -> float:
        """``seconds``, or those that are left if they are fewer."""
        return (
            seconds if self._end is None else max(0.0, min(seconds, self._end - time.monotonic()))
        )

    def check(self) -> None:
        """Raise ``WaitTimeout`` once the deadline has passed."""
        if self._end is not None and time.monotonic() >= self._end:
            raise self.error()

    def error(self) -> WaitTimeout:
        """What is raised when the deadline has passed."""
        return WaitTimeout(
            f"the scene did not end within {self._seconds:g} s",
            where=f"scene {self._scene_id}",
            fix="it goes on running: wait again, or cancel it",
        )


def watch(response: httpx.Response, deadline: Deadline) -> None:
    """Check the deadline at each chunk of a response's body.

    Heartbeats reach that point although they are no events, so that a wait ends in time even when
    nothing happens.
    """
    assert isinstance(response.stream, httpx.SyncByteStream)
    response.stream = _WatchedStream(response.stream, deadline)


class _WatchedStream(httpx.SyncByteStream):
    def __init__(self, stream: httpx.SyncByteStream, deadline: Deadline) -> None:
        self._stream, self._deadline = stream, deadline

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._deadline.check()
            yield chunk

    def close(self) -> None:
        self._stream.close()
