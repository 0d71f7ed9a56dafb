"""Many at once: one scene a key, events without gap for whoever watches, one end of each scene."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select
from worldstereo_client.schemas import SceneRequest, SceneStatus, TrajectoryStatus

from deployments.errors import QueueFull, StateConflict
from deployments.records import NewScene, Submission
from deployments.store import Store
from deployments.tables import events
from deployments.webhook_queue import WebhookQueue
from tests.deployments.test_store import new_scene

POSTS = """
import sys
from concurrent.futures import ThreadPoolExecutor
from deployments.records import Submission
from deployments.store import Store
from tests.deployments.test_store import new_scene

store = Store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()

def post(number):
    scene = new_scene(f"{sys.argv[2]}{number}")
    return store.add_scene(scene, Submission("key", "aaaa"), max_queued=10).id

with ThreadPoolExecutor(50) as posts:
    print(*set(posts.map(post, range(50))), flush=True)
"""


def test_100_posts_of_two_processes_with_one_key_make_one_scene(
    database_url: str, pytestconfig: pytest.Config
) -> None:
    store = Store(database_url)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", POSTS, database_url, name],
            cwd=pytestconfig.rootpath,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("left", "right")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # now both at once
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = {name for process in processes for name in process.communicate()[0].split()}
    assert [process.returncode for process in processes] == [0, 0]
    assert len(found) == 1
    records, more = store.page(None, None, 10)
    assert ({record.id for record in records}, more) == (found, None)
    assert len(store.events(found.pop(), after=0)) == 1
    store.close()


def test_a_queue_that_many_fill_at_once_takes_no_more_than_it_may(each_store: Store) -> None:
    def post(number: int) -> bool:
        key = Submission(f"key{number}", "aaaa")
        try:
            each_store.add_scene(new_scene(f"scene{number}"), key, max_queued=5)
        except QueueFull:
            return False
        return True

    with ThreadPoolExecutor(12) as posts:
        assert sum(posts.map(post, range(24))) == 5
    assert each_store.queued() == 5


def test_a_watcher_misses_no_event_of_many_writers(each_store: Store) -> None:
    """Also one whose transaction began first and ends last: it takes its number last, too."""
    names = [f"scene{number}" for number in range(6)]
    for name in names:
        each_store.add_scene(new_scene(name), max_queued=9)
        each_store.advance_scene(name, SceneStatus.IN_PROGRESS)
    told: dict[int, str] = {}
    ended = threading.Event()

    def write(name: str) -> None:
        for step in range(25):
            each_store.record_scene_progress(name, "plan", step, 25)

    def watch() -> int:
        missed, seen = 0, 0
        while True:
            last_look = ended.is_set()
            with each_store._reads() as connection:
                rows = connection.execute(select(events.c.number, events.c.scene_id)).all()
            new = {number: name for number, name in rows if number not in told}
            missed += sum(number <= seen for number in new)
            told.update(new)
            seen = max([seen, *new])
            if last_look:
                return missed

    with ThreadPoolExecutor(len(names) + 1) as threads:
        watching = threads.submit(watch)
        for writing in [threads.submit(write, name) for name in names]:
            writing.result()
        ended.set()
        assert watching.result() == 0
    assert len(told) == 6 * 27
    for name in names:
        ids = [event.id for event in each_store.events(name, after=0)]
        assert ids == list(range(1, 28))


def test_news_come_in_the_order_of_their_numbers(each_store: Store) -> None:
    """A transaction that has numbered its event holds back those that would come after it."""
    for name in ("one", "two"):
        each_store.add_scene(new_scene(name), max_queued=9)
    seen = each_store.last_event_number()
    second = threading.Thread(target=each_store.advance_scene, args=("two", SceneStatus.CANCELLING))
    with each_store._writes_about("one") as connection:
        each_store._tell(connection, "one", type="progress", stage="plan", step=0, steps=0)
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert each_store.scenes_with_news(seen) == (set(), seen)
    second.join()
    scenes, seen = each_store.scenes_with_news(seen)
    assert scenes == {"one", "two"}


def test_a_read_sees_one_moment(each_store: Store) -> None:
    each_store.add_scene(new_scene(), max_queued=9)
    count = select(func.count()).select_from(events)
    with each_store._reads() as connection:
        before = connection.execute(count).scalar_one()
        each_store.advance_scene("one", SceneStatus.IN_PROGRESS)
        assert connection.execute(count).scalar_one() == before == 1
    assert len(each_store.events("one", after=0)) == 2


def test_a_change_is_told_that_comes_while_an_earlier_one_is_noted(
    each_store: Store, database_url: str
) -> None:
    """The later change is written, not committed, when the note of the earlier one looks for it."""
    scene = NewScene("one", "kitchen", SceneRequest(webhook_url="https://example.com"), ("v/a",))
    each_store.add_scene(scene, max_queued=9)
    queue = WebhookQueue(database_url)
    noting = threading.Thread(target=queue.told, args=("one", 1, 5.0))
    with each_store._writes_about("one") as connection:
        each_store._tell(connection, "one", type="scene", status=SceneStatus.CANCELLING)
        noting.start()
        noting.join(0.5)
    noting.join()
    (due,) = queue.due(2e9, 9)
    assert (due.event.id, due.event.status) == (2, "cancelling")
    queue.told("one", 2, 6.0)
    assert queue.due(2e9, 9) == []
    queue.close()


def race(*calls: Callable[[], object]) -> list[bool]:
    """Make all calls at once; which of them were possible."""
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], object]) -> bool:
        barrier.wait()
        try:
            call()
        except StateConflict:
            return False
        return True

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(one, calls))


def test_cancel_and_the_end_race_to_one_end(each_store: Store) -> None:
    for number in range(8):
        name = f"scene{number}"
        each_store.add_scene(new_scene(name), max_queued=9)
        each_store.advance_scene(name, SceneStatus.IN_PROGRESS)
        assert each_store.claim(name, "a", 60)
        held = each_store.as_holder("a")
        won = race(
            lambda name=name: each_store.advance_scene(name, SceneStatus.CANCELLING),
            lambda name=name, held=held: held.advance_scene(name, SceneStatus.COMPLETED),
        )
        assert sum(won) == 1
        now = each_store.scene(name).status
        assert now is (SceneStatus.CANCELLING if won[0] else SceneStatus.COMPLETED)
        assert [event.id for event in each_store.events(name, after=0)] == [1, 2, 3]


def test_a_cancel_never_fails_because_its_scene_is_started_at_that_moment(
    each_store: Store,
) -> None:
    for number in range(8):
        name = f"scene{number}"
        each_store.add_scene(new_scene(name), max_queued=9)
        cancelled, _ = race(
            lambda name=name: each_store.advance_scene(name, SceneStatus.CANCELLING),
            lambda name=name: each_store.advance_scene(name, SceneStatus.IN_PROGRESS),
        )
        assert cancelled
        assert each_store.scene(name).status is SceneStatus.CANCELLING


def test_a_clip_that_ends_twice_at_once_ends_once(each_store: Store) -> None:
    each_store.add_scene(new_scene(), max_queued=9)
    each_store.advance_scene("one", SceneStatus.IN_PROGRESS)
    each_store.advance_trajectory("one", "renders/a", TrajectoryStatus.QUEUED)
    each_store.start_attempt("one", "renders/a", "first", 1)
    done = (TrajectoryStatus.COMPLETED, TrajectoryStatus.CANCELLED, TrajectoryStatus.FAILED)
    won = race(
        *(
            lambda to=to: each_store.advance_trajectory("one", "renders/a", to)
            for to in (*done, *done)
        )
    )
    assert sum(won) == 1
    told = [event.status for event in each_store.events("one", after=0) if event.trajectory]
    assert told[:2] == ["queued", "in_progress"]
    assert len(told) == 3
