"""A number of slots, shared fairly: the highest priority first, round robin between groups, within
a group between its owners, and by urgency within one.

Pure asyncio, for one event loop. An owner is a scene, its group whoever sent it, a slot a clip in
flight. No slot is taken away: a higher priority gets the next one that is free.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter


class FairSlots:
    """Slots that owners wait for.

    Args:
        capacity: slots that are given to whoever asks.
        per_owner: slots of one owner at most; None: no limit of its own.
        ahead: slots beyond ``capacity``, given only while as many as ``capacity`` others wait. Who
            has one is bound to a replica that is busy; where little waits, another replica may be
            free sooner and find nothing to do.
    """

    def __init__(self, capacity: int, per_owner: int | None = None, ahead: int = 0) -> None:
        self._capacity = capacity
        self._ahead = ahead
        self._free = capacity
        self._per_owner = math.inf if per_owner is None else per_owner
        self._held: Counter[str] = Counter()
        self._count = itertools.count(1)
        self._waiting: dict[str, list[tuple[int, int, asyncio.Future[None]]]] = {}
        # When each owner that waits or holds a slot was granted its last one, and each group.
        self._last_turn: dict[str, int] = {}
        self._last_turn_of_group: dict[str, int] = {}
        self._classes: dict[str, tuple[str, int]] = {}

    async def acquire(
        self, owner: str, urgency: int = 0, *, group: str = "", priority: int = 0
    ) -> None:
        """Wait for a slot; whoever gets it calls ``release``.

        Args:
            owner: whose turn it uses up.
            urgency: of the owner's waiting requests, the highest goes first; the oldest of equals.
            group: of the owner, always the same; its turn is used up too.
            priority: of the owner, always the same; the highest goes before all others.
        """
        self._classes[owner] = (group, priority)
        granted = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(owner, [])
        heapq.heappush(queue, (-urgency, next(self._count), granted))
        self._grant()
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(owner)
            raise

    def release(self, owner: str) -> None:
        """Give a slot back."""
        self._free += 1
        self._held[owner] -= 1
        self._grant()

    def _grant(self) -> None:
        self._forget_the_idle()
        while self._free > 0 or (self._free > -self._ahead and self._waits() > self._capacity):
            entitled = [owner for owner in self._waiting if self._held[owner] < self._per_owner]
            if not entitled:
                return
            owner = min(entitled, key=self._rank)
            _, _, granted = heapq.heappop(self._waiting[owner])
            granted.set_result(None)
            self._free -= 1
            self._held[owner] += 1
            self._last_turn[owner] = next(self._count)
            self._last_turn_of_group[self._classes[owner][0]] = self._last_turn[owner]
            self._forget_the_idle()

    def _rank(self, owner: str) -> tuple[int, int, int]:
        """Lowest first."""
        group, priority = self._classes[owner]
        turn_of_group = self._last_turn_of_group.get(group, 0)
        return -priority, turn_of_group, self._last_turn.get(owner, 0)

    def _waits(self) -> float:
        """Requests that wait and that no owner's limit holds back."""
        return sum(
            min(sum(not granted.done() for _, _, granted in queue), self._per_owner - held)
            for owner, queue in self._waiting.items()
            if (held := self._held[owner]) < self._per_owner
        )

    def _forget_the_idle(self) -> None:
        for owner, queue in list(self._waiting.items()):
            while queue and queue[0][2].done():  # cancelled while it waited
                heapq.heappop(queue)
            if not queue:
                del self._waiting[owner]
        for owner in [name for name, count in self._held.items() if not count]:
            del self._held[owner]
            if owner not in self._waiting:
                self._last_turn.pop(owner, None)
        for owner in self._classes.keys() - self._waiting.keys() - self._held.keys():
            del self._classes[owner]
        groups = {group for group, _ in self._classes.values()}
        for group in self._last_turn_of_group.keys() - groups:
            del self._last_turn_of_group[group]
