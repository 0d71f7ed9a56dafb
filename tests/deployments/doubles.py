"""Doubles of a generator's replicas and of a memory bank, for tests of the orchestration."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from worldstereo_client.schemas import Output

from actors.memory_bank import OpenedScene, PlannedClip, SceneStage
from actors.messages import (
    Advanced,
    ClipRequest,
    Committed,
    Failed,
    Message,
    Started,
    Stopped,
    WorkerLost,
)
from worldstereo.errors import WorldStereoError

DIES = "the replica dies here"
HANGS = "the replica is silent from here on"
REFUSES = "the replica does not take the clip"

# What a replica does with one attempt: messages, or one of the words above.
Script = list[Message | str]
WORKS: Script = [
    Advanced("retrieve"),
    Advanced("denoise", 0, 2),
    Advanced("denoise", 1, 2),
    Advanced("denoise", 2, 2),
    Advanced("commit"),
    Committed(first=True, stage_seconds={"denoise": 0.5}),
]


class FakeWorkerActor:
    """Stands for the actor handle in ``Started``: notes what is cancelled."""

    def __init__(self) -> None:
        self.cancelled: set[str] = set()

    @property
    def cancel(self) -> "FakeWorkerActor":
        return self

    def options(self, **options: Any) -> "FakeWorkerActor":
        assert options == {"concurrency_group": "control"}
        return self

    def remote(self, attempt_id: str) -> None:
        self.cancelled.add(attempt_id)


class FakeStream:
    """One attempt on a fake replica."""

    def __init__(self, replicas: "FakeReplicas", request: ClipRequest, script: Script) -> None:
        self.request = request
        self.given_up = False
        self.committed = False
        self._replicas = replicas
        self._script = script

    async def __aiter__(self) -> AsyncIterator[Message]:
        replicas = self._replicas
        async with replicas.free:
            if REFUSES in self._script:
                yield Failed(WorkerLost("a worker died before"), retry=True)
                return
            replicas.started.append(self.request.trajectory_id)
            yield Started(replicas.worker)
            for step in self._script:
                await asyncio.sleep(replicas.step_s)
                if self.request.attempt_id in replicas.worker.cancelled:
                    yield Stopped()
                    return
                if step == DIES:
                    raise RuntimeError("The actor died unexpectedly.\nlong text")
                if step == HANGS:
                    await asyncio.sleep(3600)
                assert not isinstance(step, str)
                if isinstance(step, Committed):
                    self.committed = True
                    replicas.committed.append(self.request.trajectory_id)
                yield step

    def cancel(self) -> None:
        self.given_up = True


class FakeReplicas:
    """A generator deployment: as many clips at once as it has replicas.

    Args:
        count: replicas.
        scripts: for each trajectory, what happens in its first, second, ... attempt; what is not
            named works.
    """

    def __init__(self, count: int = 1, scripts: Mapping[str, list[Script]] | None = None) -> None:
        self.free = asyncio.Semaphore(count)
        self.worker = FakeWorkerActor()
        self.step_s = 0.0
        self.started: list[str] = []
        self.committed: list[str] = []
        self.streams: list[FakeStream] = []
        self._scripts = {name: list(attempts) for name, attempts in (scripts or {}).items()}

    def dispatch(self, request: ClipRequest) -> FakeStream:
        left = self._scripts.get(request.trajectory_id)
        stream = FakeStream(self, request, left.pop(0) if left else WORKS)
        self.streams.append(stream)
        return stream


class FakeMemory:
    """A scene's memory bank.

    Args:
        depends_on: the plan, in canonical order.
        committed: what is on disk already.
        opening: called at each ``open``; may raise.
        reconstructing: called with the outputs; may raise.
    """

    def __init__(
        self,
        depends_on: Mapping[str, tuple[str, ...]],
        committed: frozenset[str] = frozenset(),
        opening: Callable[[], None] | None = None,
        reconstructing: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.actor = "bank"
        self.outputs: list[Output] = []
        self.stopped = asyncio.Event()
        self.told = SceneStage("open")
        self._reconstructing = reconstructing
        self.states: dict[str, str] = {}
        self.closed = 0
        # Where it is set, ``open`` takes until this happens.
        self.building: asyncio.Event | None = None
        self._opening = opening
        self._opened = OpenedScene(
            tuple(
                PlannedClip(name, position, others)
                for position, (name, others) in enumerate(depends_on.items())
            ),
            committed,
        )

    async def open(self, epoch: str) -> OpenedScene:
        if self._opening is not None:
            self._opening()
        if self.building is not None:
            await self.building.wait()
        return self._opened

    async def reconstruct(self, outputs: Collection[Output]) -> None:
        self.outputs += outputs
        self.stopped.clear()
        if self._reconstructing is not None:
            await self._reconstructing()

    async def stage(self) -> SceneStage:
        return self.told

    async def stop(self) -> None:
        self.stopped.set()

    async def finish(self, states: Mapping[str, str]) -> None:
        self.states = dict(states)

    def close(self) -> None:
        self.closed += 1


def fails_with(error: WorldStereoError) -> Callable[[], None]:
    def opening() -> None:
        raise error

    return opening
