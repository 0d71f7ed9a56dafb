"""Which replica a clip goes to: the one with fewest clips.

A replica takes two clips, of which it generates one. Serve's own choice is the better of two
replicas drawn by lot, which may both be busy while another has nothing to do; a clip is minutes of
a GPU, so all are compared. Leaves to others: when a clip may go (fair_slots.py), and all else of
Serve's routing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from ray.serve.request_router import RequestRouter

# A choice that no request followed within this time, in seconds, was not made.
_FORGET_S = 2.0
# How often a replica that does not answer Serve's question for its queue is asked, before one with
# more clips is: the answer is waited for for 0.1 s, then 0.2 s and so on, on a busy machine too.
_MOST_ASKS = 4

ReplicaT = TypeVar("ReplicaT", bound=Hashable)


class _Choice(NamedTuple):
    replica: Hashable
    at_s: float
    asks: int


class Load:
    """Clips of each replica, as far as this router sent or is about to send them.

    Args:
        clock: seconds, from any start.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._sent: Counter[Hashable] = Counter()
        self._chosen: dict[Hashable, _Choice] = {}

    def choose(self, request: Hashable, replicas: Iterable[ReplicaT]) -> ReplicaT | None:
        """The replica with fewest clips, the first of equals; None where there is none.

        It counts as one clip more until ``sent``, or until the same request chooses again because
        it was not taken.
        """
        now_s = self._clock()
        before = self._chosen.pop(request, None)
        for other, choice in list(self._chosen.items()):
            if choice.at_s < now_s - _FORGET_S:
                del self._chosen[other]
        clips = self._sent + Counter(choice.replica for choice in self._chosen.values())
        if before is not None and before.asks >= _MOST_ASKS:
            clips[before.replica] += 1
        best = min(replicas, key=clips.__getitem__, default=None)
        if best is not None:
            asks = before.asks if before is not None and before.replica == best else 0
            self._chosen[request] = _Choice(best, now_s, asks + 1)
        return best

    def sent(self, replica: Hashable) -> None:
        """A clip was sent to it, that of any request that chose it."""
        self._sent[replica] += 1
        chose = [request for request, choice in self._chosen.items() if choice.replica == replica]
        if chose:
            del self._chosen[chose[0]]

    def ended(self, replica: Hashable) -> None:
        """A clip that was sent to it has ended, or was not taken."""
        self._sent[replica] -= 1
        if self._sent[replica] <= 0:  # below: Serve tells of some that it could not send
            del self._sent[replica]


class LeastBusyRouter(RequestRouter):  # type: ignore[misc]  # Ray has no types
    """Serve's router of a generator deployment; the orchestrator's handle has one.

    Without Serve's first-in first-out order, in which a choice may be used by another request than
    the one that it was made for: clips come in an order that fair_slots.py has made.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        """Called by Serve before all else."""
        self._load = Load()

    async def choose_replicas(
        self, candidate_replicas: Sequence[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """The replica that is asked next: no other, lest one with more clips answers sooner."""
        found = {replica.replica_id: replica for replica in candidate_replicas}
        request = pending_request and pending_request.metadata.internal_request_id
        best = self._load.choose(request, found)
        return [] if best is None else [[found[best]]]

    def on_send_request(self, replica_id: Any) -> None:
        """Called by Serve for each request, taken or not."""
        super().on_send_request(replica_id)
        self._load.sent(replica_id)

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        """Called by Serve once for each request that was sent."""
        super().on_request_completed(replica_id, internal_request_id)
        self._load.ended(replica_id)
