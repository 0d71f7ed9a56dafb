"""No space for results: clips and scenes wait, say why, and go on; doubles in place of the rest."""

import asyncio
import errno
import pickle
from collections.abc import Awaitable, Callable

import pytest
from worldstereo_client.schemas import Event, SceneStatus

from actors.blobs import BlobStoreAway
from actors.full_storage import StorageFull, telling_full_storage
from actors.messages import Advanced, Committed, Paused, Preparation, Stopped
from deployments.store import Store
from tests.deployments.doubles import WORKS, FakeMemory, FakeReplicas
from tests.deployments.replica_doubles import SIGNS, Bank, Caller, Group, Method, replica_of
from tests.deployments.test_scene_job import PLAN, job_of, new_scene
from worldstereo.errors import MediaError

pytestmark = pytest.mark.virtual_time

AWAY = BlobStoreAway("the blob store cannot be used", where="s3://bucket")
FULL = StorageFull("no space is left for results", where="data_dir")


def want_of_space() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


async def test_want_of_space_is_told_from_other_errors() -> None:
    with pytest.raises(StorageFull, match="make space"), telling_full_storage():
        raise want_of_space()
    with pytest.raises(StorageFull), telling_full_storage():
        raise MediaError("cannot be written") from want_of_space()
    with pytest.raises(StorageFull), telling_full_storage():
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    with pytest.raises(PermissionError), telling_full_storage():
        raise PermissionError(errno.EACCES, "Permission denied")


class SmallBank(Bank):
    """A memory bank that finds space for a clip when it is asked for the ``tries``-th time."""

    def __init__(self, tries: int) -> None:
        super().__init__()
        self.tries = tries

    def _commit(self, answer: object, *arguments: object) -> Awaitable[object]:
        self.tries -= 1
        answer = FULL if self.tries > 0 else True
        found: Awaitable[object] = super()._commit(answer, *arguments)
        return found


async def test_a_clip_without_space_is_kept_and_committed_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bank, group = SmallBank(tries=5), Group(SIGNS)
    caller = Caller(replica_of(group), bank, "attempt")
    await caller.task
    said = caller.messages
    assert said[said.index(Advanced("commit")) :] == [
        Advanced("commit"),
        *[Paused(FULL)] * 4,
        said[-1],
    ]
    assert isinstance(said[-1], Committed)
    assert said.count(SIGNS[0]) == 1  # it was generated once
    assert caplog.text.count("no space is left") == 1


class ForgetfulBank(Bank):
    """A memory bank that must read its scene again, from a blob store that is away at first."""

    def __init__(self, tries: int, *, committed: bool = False) -> None:
        super().__init__()
        self.tries = tries
        self.preparation = Preparation(committed=committed)
        self.prepare = Method(lambda trajectory_id, attempt_id: ("clip", self._prepared()))

    async def _prepared(self) -> Preparation:
        self.tries -= 1
        if self.tries > 0:
            raise AWAY
        return self.preparation


@pytest.mark.parametrize("committed", [False, True])
async def test_a_clip_that_cannot_be_prepared_now_waits(committed: bool) -> None:
    caller = Caller(
        replica_of(Group(SIGNS)), ForgetfulBank(tries=3, committed=committed), "attempt"
    )
    await caller.task
    said = caller.messages
    assert said[1:4] == [Advanced("retrieve"), Paused(AWAY), Paused(AWAY)]
    assert isinstance(said[-1], Committed)
    assert said[-1].first is not committed
    assert said.count(SIGNS[0]) == (0 if committed else 1)


async def test_a_clip_that_waits_to_be_prepared_is_stopped_when_it_is_cancelled() -> None:
    group = Group(SIGNS)
    caller = Caller(replica_of(group), ForgetfulBank(tries=1000), "attempt")
    await caller.until(Paused(AWAY))
    group.cancel("attempt")
    await caller.task
    assert caller.messages[-1] == Stopped()
    assert SIGNS[0] not in caller.messages


async def test_a_clip_that_waits_for_space_is_stopped_when_it_is_cancelled() -> None:
    group = Group(SIGNS)
    caller = Caller(replica_of(group), SmallBank(tries=1000), "attempt")
    await caller.until(Paused(FULL))
    group.cancel("attempt")
    await caller.task
    assert caller.messages[-1] == Stopped()


async def test_a_clip_that_waits_for_space_says_so(store: Store) -> None:
    new_scene(store)
    *before, committed = WORKS
    replicas = FakeReplicas(1, {"v/a": [[*before, Paused(FULL), committed]]})
    await job_of(store, replicas).run()
    record = store.scene("one")
    assert record.status is SceneStatus.COMPLETED
    assert store.attempts("one", "v/a") == [(1, "committed", "")]
    (told,) = [event for event in store.events("one", 0) if event.error]
    assert (told.type, told.trajectory, told.stage) == ("progress", "v/a", "commit")
    assert told.error is not None
    assert told.error.error == "StorageFull"
    assert [item.error for item in record.trajectories] == [None] * len(PLAN)


def full_for(tries: int) -> Callable[[], None]:
    left = iter(range(tries))

    def work() -> None:
        if next(left, None) is not None:
            raise FULL

    return work


class Cramped(FakeMemory):
    """A memory bank without space for the manifest for the first ``tries`` times."""

    def __init__(self, tries: int) -> None:
        super().__init__(PLAN)
        self._look = full_for(tries)

    async def finish(self, states: object) -> None:
        self._look()
        self.states = {"written": "yes"}


def waits(store: Store) -> list[Event]:
    return [event for event in store.events("one", 0) if event.stage == "wait"]


async def test_a_scene_waits_for_space_for_its_plan(store: Store) -> None:
    new_scene(store)
    await job_of(store, FakeReplicas(2), FakeMemory(PLAN, opening=full_for(20))).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert len(waits(store)) == 20
    assert {event.error and event.error.error for event in waits(store)} == {"StorageFull"}


async def test_a_scene_waits_for_space_for_its_outputs_and_its_manifest(store: Store) -> None:
    new_scene(store)
    memory = Cramped(tries=20)
    look = full_for(20)

    async def reconstructing() -> None:
        look()

    memory._reconstructing = reconstructing
    await job_of(store, FakeReplicas(2), memory).run()
    assert store.scene("one").status is SceneStatus.COMPLETED
    assert memory.states == {"written": "yes"}
    assert len(waits(store)) >= 20


async def test_a_scene_that_waits_for_space_can_be_cancelled(store: Store) -> None:
    new_scene(store)
    memory = Cramped(tries=1_000_000)
    job = job_of(store, FakeReplicas(2), memory)
    running = asyncio.create_task(job.run())
    while not waits(store):  # noqa: ASYNC110
        await asyncio.sleep(0.1)
    store.advance_scene("one", SceneStatus.CANCELLING)
    job.cancel()
    await running
    assert store.scene("one").status is SceneStatus.CANCELLED
    assert memory.states == {}


def test_the_error_survives_the_way_to_another_process() -> None:
    again = pickle.loads(pickle.dumps(FULL))
    assert (type(again), str(again)) == (StorageFull, str(FULL))
