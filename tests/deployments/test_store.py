"""The store: transitions, events, keys; a state machine against a plain model of it."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from worldstereo_client.schemas import SceneRequest, SceneStatus, TrajectoryStatus

from deployments.errors import (
    IdempotencyConflict,
    QueueFull,
    SceneNotFound,
    StateConflict,
)
from deployments.records import NewScene, Submission, progress_of
from deployments.states import SCENE_TRANSITIONS, TRAJECTORY_TRANSITIONS
from deployments.store import Store

CLIPS = ("renders/a", "renders/b")


@pytest.fixture
def store(each_store: Store) -> Store:
    """Every test here runs on each database."""
    return each_store


def new_scene(scene_id: str = "one") -> NewScene:
    return NewScene(scene_id, "kitchen", SceneRequest(seed=7), CLIPS)


def test_a_new_scene_is_queued_and_says_so(store: Store) -> None:
    record = store.add_scene(new_scene(), max_queued=10)
    assert record.status is SceneStatus.QUEUED
    assert record.parameters == SceneRequest(seed=7)
    assert [item.id for item in record.trajectories] == list(CLIPS)
    assert {item.status for item in record.trajectories} == {TrajectoryStatus.BLOCKED}
    (event,) = store.events("one", after=0)
    assert (event.id, event.type, event.status) == (1, "scene", "queued")
    assert store.queue_position(record) == 0


def test_every_state_has_a_row_in_its_table() -> None:
    assert set(SCENE_TRANSITIONS) == set(SceneStatus)
    assert set(TRAJECTORY_TRANSITIONS) == set(TrajectoryStatus)
    for state, after in [*SCENE_TRANSITIONS.items(), *TRAJECTORY_TRANSITIONS.items()]:
        again = state in (SceneStatus.FAILED, TrajectoryStatus.FAILED, TrajectoryStatus.SKIPPED)
        assert state.terminal == (not after or again)
        assert state not in after


def test_a_forbidden_transition_changes_and_tells_nothing(store: Store) -> None:
    store.add_scene(new_scene(), max_queued=10)
    with pytest.raises(StateConflict, match="queued -> completed"):
        store.advance_scene("one", SceneStatus.COMPLETED)
    with pytest.raises(StateConflict, match="blocked -> in_progress"):
        store.start_attempt("one", "renders/a", "attempt", 1)
    assert store.scene("one").status is SceneStatus.QUEUED
    assert len(store.events("one", after=0)) == 1
    assert store.attempts("one", "renders/a") == []


def test_what_is_not_there_is_named(store: Store) -> None:
    with pytest.raises(SceneNotFound, match="scene two"):
        store.scene("two")
    with pytest.raises(SceneNotFound):
        store.advance_scene("two", SceneStatus.CANCELLING)
    store.add_scene(new_scene(), max_queued=10)
    with pytest.raises(SceneNotFound, match="renders/z"):
        store.advance_trajectory("one", "renders/z", TrajectoryStatus.QUEUED)


def test_a_trajectorys_life_with_a_retry(store: Store) -> None:
    store.add_scene(new_scene(), max_queued=10)
    store.record_plan("one", {"renders/a": [], "renders/b": ["renders/a"]})
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    store.advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    store.record_progress("one", "renders/a", "denoise", 1, 4)  # not in progress: nothing
    store.start_attempt("one", "renders/a", "first", 1)
    store.record_progress("one", "renders/a", "denoise", 2, 4)
    running = store.scene("one").trajectories[0]
    assert (running.stage, running.step, running.steps, running.attempt) == ("denoise", 2, 4, 1)
    store.end_attempt("first", "lost", "its worker died")
    store.advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    store.start_attempt("one", "renders/a", "second", 2)
    store.advance_trajectory(
        "one", "renders/a", TrajectoryStatus.COMPLETED, stage_seconds={"denoise": 1.5}
    )
    done, waiting = store.scene("one").trajectories
    assert (done.attempt, done.stage, done.stage_seconds) == (2, None, {"denoise": 1.5})
    assert done.finished_at is not None
    assert waiting.depends_on == ["renders/a"]
    assert store.attempts("one", "renders/a") == [
        (1, "lost", "its worker died"),
        (2, None, ""),
    ]
    told = [(event.type, event.status or event.stage) for event in store.events("one", 0)]
    assert told == [
        ("scene", "queued"),
        ("scene", "in_progress"),
        ("trajectory", "queued"),
        ("trajectory", "in_progress"),
        ("progress", "denoise"),
        ("trajectory", "queued"),
        ("trajectory", "in_progress"),
        ("trajectory", "completed"),
    ]


def test_an_abandoned_attempt_is_ended_once(store: Store) -> None:
    store.add_scene(new_scene(), max_queued=10)
    store.advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    store.start_attempt("one", "renders/a", "first", 1)
    store.abandon_attempts("one")
    store.end_attempt("first", "committed")
    assert store.attempts("one", "renders/a") == [(1, "abandoned", "")]


def test_an_abandoned_attempt_whose_clip_is_there_has_committed_it(store: Store) -> None:
    store.add_scene(new_scene(), max_queued=10)
    for attempt, trajectory in enumerate(("renders/a", "renders/b")):
        store.advance_trajectory("one", trajectory, TrajectoryStatus.QUEUED)
        store.start_attempt("one", trajectory, str(attempt), 1)
    store.abandon_attempts("one", ["renders/b"])
    assert store.attempts("one", "renders/a") == [(1, "abandoned", "")]
    assert store.attempts("one", "renders/b") == [(1, "committed", "")]


def test_the_same_key_and_body_are_the_same_scene(store: Store) -> None:
    key = Submission("key", "aaaa")
    assert store.submission(key) is None
    store.add_scene(new_scene("one"), key, max_queued=10)
    again = store.add_scene(new_scene("two"), key, max_queued=10)
    assert again.id == "one"
    assert store.submission(key) == "one"
    with pytest.raises(IdempotencyConflict, match="another request"):
        store.add_scene(new_scene("three"), Submission("key", "bbbb"), max_queued=10)
    assert [record.id for record in store.page(None, None, 10)[0]] == ["one"]


def test_a_full_queue_takes_nothing_more(store: Store) -> None:
    store.add_scene(new_scene("one"), max_queued=2)
    store.add_scene(new_scene("two"), max_queued=2)
    with pytest.raises(QueueFull, match="2 waiting"):
        store.add_scene(new_scene("three"), max_queued=2)
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    record = store.add_scene(new_scene("three"), max_queued=2)
    assert store.queue_position(record) == 1


def test_pages_are_newest_first_and_complete(store: Store) -> None:
    for number in range(5):
        store.add_scene(new_scene(f"scene{number}"), max_queued=10)
    store.advance_scene("scene3", SceneStatus.CANCELLING)
    first, cursor = store.page(None, None, 2)
    second, cursor = store.page(None, cursor, 2)
    third, last = store.page(None, cursor, 2)
    names = [record.id for record in [*first, *second, *third]]
    assert names == ["scene4", "scene3", "scene2", "scene1", "scene0"]
    assert last is None
    cancelling, _ = store.page(SceneStatus.CANCELLING, None, 10)
    assert [record.id for record in cancelling] == ["scene3"]
    assert store.in_state({SceneStatus.QUEUED}, limit=2) == ["scene0", "scene1"]


def test_news_are_seen_once(store: Store) -> None:
    store.add_scene(new_scene("one"), max_queued=10)
    seen = store.last_event_number()
    assert store.scenes_with_news(seen) == (set(), seen)
    store.add_scene(new_scene("two"), max_queued=10)
    scenes, seen = store.scenes_with_news(seen)
    assert scenes == {"two"}
    assert store.scenes_with_news(seen) == (set(), seen)


def test_who_begins_next_is_fair_between_owners_and_goes_by_priority(store: Store) -> None:
    for number, (owner, priority) in enumerate(
        [("ann", 0), ("ann", 0), ("ann", 0), ("bob", 0), ("ann", 3), ("cid", -1)]
    ):
        scene = NewScene(f"{owner}{number}", "kitchen", SceneRequest(), CLIPS)
        store.add_scene(replace(scene, owner=owner, priority=priority), max_queued=10)
    assert store.next_waiting(10) == ["ann4", "bob3", "ann0", "ann1", "ann2", "cid5"]
    assert store.next_waiting(2) == ["ann4", "bob3"]
    places = [store.queue_position(store.scene(name)) for name in store.next_waiting(10)]
    assert places == list(range(6))
    store.advance_scene("bob3", SceneStatus.IN_PROGRESS)
    store.advance_scene("ann4", SceneStatus.IN_PROGRESS)
    bobs = replace(NewScene("bob6", "kitchen", SceneRequest(), CLIPS), owner="bob")
    store.add_scene(bobs, max_queued=10)
    assert store.next_waiting(3) == ["ann0", "bob6", "ann1"]


def test_progress_counts_steps() -> None:
    done, running = TrajectoryStatus.COMPLETED, TrajectoryStatus.IN_PROGRESS
    assert progress_of([]) == 0
    assert progress_of([(done, None, 0, 0), (TrajectoryStatus.BLOCKED, None, 0, 0)]) == 0.5
    shares = [progress_of([(running, "denoise", step, 4)]) for step in range(5)]
    assert shares == sorted(shares)
    assert shares[0] > 0
    assert shares[-1] < 1


class StoreMachine(RuleBasedStateMachine):
    """Any sequence of advances: allowed ones happen and are told, others change nothing."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.store = Store(url)
        self.store.add_scene(new_scene(), max_queued=1)
        self.scene = SceneStatus.QUEUED
        self.clips = dict.fromkeys(CLIPS, TrajectoryStatus.BLOCKED)
        self.told: list[tuple[str | None, str]] = [(None, "queued")]

    @rule(to=st.sampled_from(SceneStatus))
    def advance_scene(self, to: SceneStatus) -> None:
        if to in SCENE_TRANSITIONS[self.scene]:
            assert self.store.advance_scene("one", to) == self.scene
            self.scene = to
            self.told.append((None, to))
        else:
            with pytest.raises(StateConflict):
                self.store.advance_scene("one", to)

    @rule(clip=st.sampled_from(CLIPS), to=st.sampled_from(TrajectoryStatus))
    def advance_clip(self, clip: str, to: TrajectoryStatus) -> None:
        if to in TRAJECTORY_TRANSITIONS[self.clips[clip]]:
            self.store.advance_trajectory("one", clip, to)
            self.clips[clip] = to
            self.told.append((clip, to))
        else:
            with pytest.raises(StateConflict):
                self.store.advance_trajectory("one", clip, to)

    @invariant()
    def agrees(self) -> None:
        record = self.store.scene("one")
        assert record.status is self.scene
        assert {item.id: item.status for item in record.trajectories} == self.clips
        events = self.store.events("one", after=0)
        assert [event.id for event in events] == list(range(1, len(events) + 1))
        assert [(event.trajectory, event.status) for event in events] == self.told
        assert record.last_event == len(events)

    def teardown(self) -> None:
        self.store.close()


def test_any_sequence_of_advances(new_database: Callable[[], str]) -> None:
    run_state_machine_as_test(
        lambda: StoreMachine(new_database()),
        settings=settings(
            max_examples=15,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
