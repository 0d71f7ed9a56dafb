"""Clips go where fewest are: the count itself, and Serve's requests on a real cluster."""

import asyncio
import os
import time
from collections import Counter

import pytest
import ray
from ray import serve
from ray.serve.config import RequestRouterConfig

from cluster.local import APPLICATION
from deployments.routing import LeastBusyRouter, Load
from tests.clusters import running_cluster

REPLICAS = 5


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_replica_with_fewest_clips_is_chosen() -> None:
    load = Load(Clock())
    for replica in "aab":
        load.sent(replica)
    assert load.choose(1, "abc") == "c"
    load.sent("c")
    assert load.choose(2, "abc") == "b"  # the first of equals
    load.ended("a")
    load.ended("a")
    assert load.choose(3, "abc") == "a"
    assert load.choose(4, "") is None


def test_a_choice_counts_until_its_clip_is_sent() -> None:
    load = Load(Clock())
    assert [load.choose(request, "abc") for request in range(4)] == ["a", "b", "c", "a"]
    for replica in "abca":
        load.sent(replica)
    assert load.choose(4, "abc") == "b"


def test_the_end_of_a_clip_that_was_never_sent_counts_nothing() -> None:
    load = Load(Clock())
    load.ended("a")
    load.sent("a")
    assert load.choose(1, "ab") == "b"


def test_a_choice_that_nothing_follows_is_forgotten() -> None:
    clock = Clock()
    load = Load(clock)
    assert load.choose(1, "ab") == "a"
    clock.now = 1.0
    assert load.choose(2, "ab") == "b"
    clock.now = 2.5  # the first is forgotten, the second is not
    assert load.choose(3, "ab") == "a"


def test_an_idle_replica_is_asked_again_before_a_busy_one() -> None:
    load = Load(Clock())
    load.sent("a")
    assert [load.choose(1, "ab") for _ in range(6)] == ["b"] * 4 + ["a", "b"]


class Busy:
    """Takes two requests, as a generator does."""

    async def work(self, seconds: float) -> int:
        await asyncio.sleep(seconds)
        return os.getpid()


@ray.remote(num_cpus=0)
class Caller:
    """An asynchronous actor, as the orchestrator is."""

    def __init__(self) -> None:
        self._handle = serve.get_app_handle(APPLICATION)

    async def spread(self, requests: int) -> list[int]:
        """Processes that took requests which were there at once, in ascending order."""
        # The router hears that earlier ones have ended a moment after whoever waited for them.
        await asyncio.sleep(0.5)
        work = self._handle.work
        return sorted(await asyncio.gather(*(work.remote(1.5) for _ in range(requests))))

    async def after_one(self) -> tuple[int, list[int]]:
        """The process of a long request; then those of as many as other replicas are idle."""
        first = asyncio.ensure_future(self._handle.work.remote(3.5))
        await asyncio.sleep(0.5)
        others = await self.spread(REPLICAS - 1)
        return await first, others


@pytest.mark.cluster
def test_no_replica_has_two_while_another_has_none() -> None:
    with running_cluster(num_cpus=2, num_gpus=0) as cluster:
        deployment = serve.deployment(Busy).options(
            num_replicas=REPLICAS,
            max_ongoing_requests=2,
            ray_actor_options={"num_cpus": 0.1},
            request_router_config=RequestRouterConfig(request_router_class=LeastBusyRouter),
        )
        cluster.deploy(deployment.bind())
        caller = Caller.remote()
        deadline = time.monotonic() + 60
        while len(set(ray.get(caller.spread.remote(2 * REPLICAS)))) < REPLICAS:
            assert time.monotonic() < deadline, "the caller has not heard of all replicas"
        # Two of three: a replica that a busy machine keeps from answering in time is passed over.
        rounds = [ray.get(caller.spread.remote(REPLICAS)) for _ in range(3)]
        assert sum(len(set(pids)) == REPLICAS for pids in rounds) >= 2, rounds
        assert set(Counter(ray.get(caller.spread.remote(2 * REPLICAS))).values()) == {2}
        rounds = [ray.get(caller.after_one.remote()) for _ in range(3)]
        assert sum(len({first, *others}) == REPLICAS for first, others in rounds) >= 2, rounds
        # As many as there is room for, and more: all are answered.
        assert len(ray.get(caller.spread.remote(3 * REPLICAS))) == 3 * REPLICAS
