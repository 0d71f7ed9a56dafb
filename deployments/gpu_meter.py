"""How long an attempt had its replica's workers: what it cost in GPU-seconds.

Counted from the messages of the attempt as they arrive. A replica prepares and commits one clip
while its workers generate another, so these stages cost nothing.
"""

from __future__ import annotations

from actors.messages import Advanced, Message, Started

_WITHOUT_WORKERS = ("retrieve", "commit")


class GpuMeter:
    """One attempt's; ``now`` is any clock that only goes forward, in seconds."""

    def __init__(self) -> None:
        self._ranks = 0
        self._since: float | None = None
        self._until: float | None = None

    def see(self, message: Message, now: float) -> None:
        """Take note of the attempt's next message."""
        if isinstance(message, Started):
            self._ranks = message.ranks
        elif isinstance(message, Advanced) and message.stage not in _WITHOUT_WORKERS:
            self._since = now if self._since is None else self._since
        elif isinstance(message, Advanced) and message.stage == "commit" and self._until is None:
            self._until = now

    def gpu_seconds(self, now: float) -> float:
        """Seconds that the workers were the attempt's, times their number."""
        if self._since is None:
            return 0.0
        return self._ranks * ((now if self._until is None else self._until) - self._since)
