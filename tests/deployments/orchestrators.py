"""Real orchestrators over doubles of memory banks and replicas, in one event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from worldstereo_client.schemas import DEFAULT_VARIANT, SceneRequest

from actors.memory_bank import BankSpec, OpenedScene
from actors.messages import ClipRequest
from configs.settings import OrchestratorSettings
from deployments import orchestrator
from deployments.folders import SceneFolders
from deployments.orchestrator import Orchestrator, OrchestratorSpec
from deployments.outage import Outage
from deployments.records import NewScene
from deployments.store import Store
from tests.deployments.doubles import FakeMemory, FakeReplicas, FakeStream
from worldstereo.config import ModelConfig

# b needs a, c needs nothing.
PLAN: Mapping[str, tuple[str, ...]] = {"v/a": (), "v/b": ("v/a",), "v/c": ()}


class Cluster:
    """What orchestrators of one service share: replicas, and a memory bank a scene.

    ``opened`` notes for each scene which orchestrators opened its memory.
    """

    def __init__(self, replicas: FakeReplicas) -> None:
        self.replicas = replicas
        self.opened: dict[str, list[str]] = {}
        self._banks: dict[str, Bank] = {}

    # As SceneBank.
    def get_or_create(self, spec: BankSpec, *, num_cpus: float) -> "Bank":
        return self._banks.setdefault(spec.scene_id, Bank(self, spec.scene_id))

    def scenes(self, service: str) -> set[str]:
        return set(self._banks)

    def of_scene(self, service: str, scene_id: str) -> "Bank":
        if scene_id not in self._banks:
            raise ValueError("no such actor")
        return self._banks[scene_id]

    def close(self, scene_id: str) -> None:
        self._banks.pop(scene_id, None)

    # As a handle of the generator's deployment.
    @property
    def generate(self) -> "Cluster":
        return self

    def options(self, *, stream: bool) -> "Cluster":
        return self

    def remote(self, request: ClipRequest) -> FakeStream:
        return self.replicas.dispatch(request)


class Bank(FakeMemory):
    """The memory of one scene; what a replica committed is there when it is opened again."""

    def __init__(self, cluster: Cluster, scene_id: str) -> None:
        super().__init__(PLAN)
        self.actor = scene_id
        self._cluster = cluster
        self._scene_id = scene_id

    async def open(self, epoch: str) -> OpenedScene:
        self._cluster.opened.setdefault(self._scene_id, []).append(epoch)
        clips = (await super().open(epoch)).clips
        streams = self._cluster.replicas.streams
        committed = {
            stream.request.trajectory_id
            for stream in streams
            if stream.request.bank == self._scene_id and stream.committed
        }
        return OpenedScene(clips, frozenset(committed))

    def close(self) -> None:
        super().close()
        self._cluster.close(self._scene_id)


class Orchestrators:
    """Makes orchestrators of one service.

    Args:
        url: of their store.
        folder: of their scenes.
        cluster: what they share.
        settings: of each.
        config: of the model.
    """

    def __init__(
        self,
        url: str,
        folder: Path,
        cluster: Cluster,
        settings: OrchestratorSettings,
        config: ModelConfig,
    ) -> None:
        self._cluster = cluster
        self._stores: list[Store] = []
        self._spec = OrchestratorSpec(
            folders=SceneFolders(folder),
            database_url=url,
            settings=settings,
            clips_at_once=4,
            clips_ahead=0,
            configs={DEFAULT_VARIANT: config},
            image_features="",
            local_files_only=True,
            depth=None,
            reconstructor=None,
        )

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Orchestrator]:
        """One that runs until the block ends, or ``kill`` ends it."""
        served = Orchestrator(self._spec, {DEFAULT_VARIANT: self._cluster})
        self._stores.append(served._store)
        try:
            yield served
        finally:
            await kill(served)

    async def close(self) -> None:
        """Wait for what still runs in threads, and close the stores; nothing may run any more."""
        await asyncio.get_running_loop().shutdown_default_executor()
        for store in self._stores:
            store.close()


async def kill(served: Orchestrator) -> None:
    """End an orchestrator where it stands; it writes nothing any more."""
    tasks = [served._main, *served._tasks.values()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def on_the_loops_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Store]:
    """Give stores, those of orchestrators too, the event loop's clock."""
    loop = asyncio.get_running_loop()

    def opened(url: str, outage: Outage | None = None) -> Store:
        return Store(url, clock=lambda: 1_000_000 + loop.time(), outage=outage)

    monkeypatch.setattr(orchestrator, "Store", opened)
    return opened


def submit(store: Store, scene_id: str, **fields: Any) -> None:
    """Queue a scene of ``PLAN``."""
    request = SceneRequest(outputs=(), **fields)
    store.add_scene(NewScene(scene_id, "s", request, tuple(PLAN)), max_queued=99)


def check_told_once(store: Store, scene_id: str) -> None:
    """The events have no gap, and each trajectory and the scene end once."""
    events = store.events(scene_id, after=0)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    ends = [(event.trajectory, str(event.status)) for event in events]
    terminal = ("completed", "failed", "cancelled", "skipped")
    ended = [name for name, status in ends if status in terminal]
    assert sorted(ended, key=str) == sorted([None, *PLAN], key=str)
    assert events[-1].trajectory is None
