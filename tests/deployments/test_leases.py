"""Leases: no two have a scene at once, none is stranded, who lost one writes nothing."""

from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    rule,
    run_state_machine_as_test,
)
from worldstereo_client.schemas import SceneStatus, TrajectoryStatus

from deployments.leases import LeaseLost
from deployments.store import Store
from tests.deployments.test_store import new_scene

LEASE_S = 10.0
SCENES = ("one", "two")
HOLDERS = ("a", "b")


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def running(store: Store, scene_id: str = "one") -> None:
    store.add_scene(new_scene(scene_id), max_queued=9)
    store.advance_scene(scene_id, SceneStatus.IN_PROGRESS)


def test_a_lease_is_had_by_one_until_it_runs_out(new_database: Callable[[], str]) -> None:
    clock = Clock()
    store = Store(new_database(), clock)
    running(store)
    assert store.claim("one", "a", LEASE_S)
    assert not store.claim("one", "b", LEASE_S)
    clock.now += LEASE_S - 1
    assert store.renew(["one"], "a", LEASE_S) == set()
    assert store.renew(["one"], "b", LEASE_S) == {"one"}
    clock.now += LEASE_S - 1
    assert not store.claim("one", "b", LEASE_S)
    clock.now += 1
    assert not store.claim("one", "b", LEASE_S, take_over=False)
    assert store.claim("one", "b", LEASE_S)
    assert store.renew(["one"], "a", LEASE_S) == {"one"}
    store.close()


def test_one_that_ran_out_is_kept_while_nobody_else_wants_it(
    new_database: Callable[[], str],
) -> None:
    clock = Clock()
    store = Store(new_database(), clock)
    running(store)
    assert store.claim("one", "a", LEASE_S)
    clock.now += 10 * LEASE_S
    store.as_holder("a").advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    assert store.renew(["one"], "a", LEASE_S) == set()
    assert not store.claim("one", "b", LEASE_S)
    store.close()


def test_an_ended_scene_and_one_that_is_not_there_are_nobodys(each_store: Store) -> None:
    running(each_store)
    each_store.advance_scene("one", SceneStatus.COMPLETED)
    assert not each_store.claim("one", "a", LEASE_S)
    assert not each_store.claim("two", "a", LEASE_S)
    assert each_store.renew(["two"], "a", LEASE_S) == {"two"}


def test_without_a_clock_of_its_own_a_lease_runs_out_by_the_databases(each_store: Store) -> None:
    running(each_store)
    assert each_store.claim("one", "a", 3600)
    assert not each_store.claim("one", "b", 3600)
    assert each_store.claim("one", "a", -1)
    assert each_store.claim("one", "b", 3600)


WRITES: dict[str, Callable[[Store], None]] = {
    "plan": lambda store: store.record_plan("one", {"renders/b": ["renders/a"]}),
    "scene": lambda store: store.advance_scene("one", SceneStatus.COMPLETED) and None,
    "clip": lambda store: store.advance_trajectory("one", "renders/b", TrajectoryStatus.QUEUED),
    "start": lambda store: store.start_attempt("one", "renders/b", "new", 1),
    "end": lambda store: store.end_attempt("old", "committed"),
    "abandon": lambda store: store.abandon_attempts("one"),
    "progress": lambda store: store.record_progress("one", "renders/a", "denoise", 1, 4),
    "stage": lambda store: store.record_scene_progress("one", "plan", 0, 0),
}


@pytest.mark.parametrize("write", WRITES)
def test_who_lost_the_lease_writes_nothing(each_store: Store, write: str) -> None:
    running(each_store)
    each_store.advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    each_store.start_attempt("one", "renders/a", "old", 1)
    assert each_store.claim("one", "b", LEASE_S)
    before = each_store.scene("one"), each_store.attempts("one", "renders/a")
    with pytest.raises(LeaseLost, match="b has its lease"):
        WRITES[write](each_store.as_holder("a"))
    assert (each_store.scene("one"), each_store.attempts("one", "renders/a")) == before


def test_a_holder_repeats_a_write_whose_answer_was_lost(each_store: Store) -> None:
    running(each_store)
    assert each_store.claim("one", "a", LEASE_S)
    held = each_store.as_holder("a")
    for _ in range(2):
        held.advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    for _ in range(2):
        held.start_attempt("one", "renders/a", "first", 1)
    for _ in range(2):
        held.end_attempt("first", "committed")
    for _ in range(2):
        held.advance_trajectory("one", "renders/a", TrajectoryStatus.COMPLETED)
    for _ in range(2):
        held.advance_scene("one", SceneStatus.COMPLETED)
    told = [(event.trajectory, event.status) for event in each_store.events("one", 0)]
    assert told == [
        (None, "queued"),
        (None, "in_progress"),
        ("renders/a", "queued"),
        ("renders/a", "in_progress"),
        ("renders/a", "completed"),
        (None, "completed"),
    ]
    assert each_store.attempts("one", "renders/a") == [(1, "committed", "")]


class LeaseMachine(RuleBasedStateMachine):
    """Two orchestrators that claim, renew, write and stand still, and a clock that goes on."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.clock = Clock()
        self.stores = {holder: Store(url, self.clock) for holder in HOLDERS}
        for scene_id in SCENES:
            running(self.stores["a"], scene_id)
        # Who may write, and until when nobody else may take it.
        self.has: dict[str, tuple[str, float]] = {}
        self.steps = 0

    @rule(seconds=st.sampled_from([0.5, LEASE_S / 2, LEASE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(holder=st.sampled_from(HOLDERS), scene_id=st.sampled_from(SCENES))
    def claim(self, holder: str, scene_id: str) -> None:
        owner, until = self.has.get(scene_id, (holder, 0.0))
        free = owner == holder or until <= self.clock.now
        assert self.stores[holder].claim(scene_id, holder, LEASE_S) == free
        if free:
            self.has[scene_id] = (holder, self.clock.now + LEASE_S)

    @rule(holder=st.sampled_from(HOLDERS), wanted=st.sets(st.sampled_from(SCENES)))
    def renew(self, holder: str, wanted: set[str]) -> None:
        mine = {name for name in wanted if self.has.get(name, ("", 0))[0] == holder}
        assert self.stores[holder].renew(wanted, holder, LEASE_S) == wanted - mine
        self.has |= dict.fromkeys(mine, (holder, self.clock.now + LEASE_S))

    @rule(scene_id=st.sampled_from(SCENES))
    def both_write(self, scene_id: str) -> None:
        """Whatever the clock says, at most one of them can."""
        wrote = []
        for holder in HOLDERS:
            self.steps += 1
            held = self.stores[holder].as_holder(holder)
            try:
                held.record_scene_progress(scene_id, "plan", self.steps, 0)
                wrote.append(holder)
            except LeaseLost:
                continue
        assert wrote == ([self.has[scene_id][0]] if scene_id in self.has else [])

    def teardown(self) -> None:
        """What nobody renews can be had by anybody after one lease."""
        self.clock.now += LEASE_S
        for scene_id in SCENES:
            assert self.stores["b"].claim(scene_id, "b", LEASE_S)
        for store in self.stores.values():
            store.close()


def test_no_two_have_a_scene_and_none_is_stranded(new_database: Callable[[], str]) -> None:
    run_state_machine_as_test(
        lambda: LeaseMachine(new_database()),
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
