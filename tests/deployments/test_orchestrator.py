"""What the orchestrator does around a scene's job, without a cluster."""

import asyncio
from pathlib import Path

import pytest
from worldstereo_client.schemas import DEFAULT_VARIANT, SceneRequest, SceneStatus

from configs.settings import OrchestratorSettings
from deployments import orchestrator
from deployments.folders import SceneFolders
from deployments.orchestrator import Orchestrator, OrchestratorSpec
from deployments.records import NewScene
from deployments.scene_context import SceneContext
from deployments.store import Store

pytestmark = pytest.mark.virtual_time


class Banks:
    """The memory banks of a cluster, by scene."""

    def __init__(self, *scenes: str) -> None:
        self.left = set(scenes)

    def scenes(self, service: str) -> set[str]:
        return set(self.left)

    def of_scene(self, service: str, scene_id: str) -> "Bank":
        if scene_id not in self.left:
            raise ValueError("no such actor")
        return Bank(self, scene_id)


class Bank:
    def __init__(self, banks: Banks, scene_id: str) -> None:
        self._banks, self._scene_id = banks, scene_id

    def close(self) -> None:
        self._banks.left.discard(self._scene_id)


async def test_a_bank_of_a_scene_that_ends_unopened_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled while no orchestrator was there: the bank may still be building the scene."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = Store(url)
    store.add_scene(NewScene("one", "s", SceneRequest(), ("v/a",)), max_queued=9)
    store.advance_scene("one", SceneStatus.IN_PROGRESS)
    store.advance_scene("one", SceneStatus.CANCELLING)
    banks = Banks("one", "ended long ago")
    monkeypatch.setattr(orchestrator, "SceneBank", banks)
    served = Orchestrator(spec_of(tmp_path, url), {DEFAULT_VARIANT: None})
    try:
        async with asyncio.timeout(5):
            while banks.left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert store.scene("one").status is SceneStatus.CANCELLED
    finally:
        await end(served)
        store.close()


async def test_a_scene_that_is_resumed_waits_until_its_earlier_job_has_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = Store(url)
    store.add_scene(NewScene("one", "s", SceneRequest(), ("v/a",)), max_queued=9)
    monkeypatch.setattr(orchestrator, "SceneBank", Banks())
    tidied, runs = asyncio.Event(), 0

    class Job:
        def __init__(self, context: SceneContext, scene_id: str) -> None:
            """Fails at once, but takes its time to let everything go."""

        async def run(self) -> None:
            nonlocal runs
            runs += 1
            if runs == 1:
                store.advance_scene("one", SceneStatus.FAILED)
                store.resume_scene("one", max_queued=9)
                await tidied.wait()
            else:
                store.advance_scene("one", SceneStatus.COMPLETED)

    monkeypatch.setattr(orchestrator, "SceneJob", Job)
    served = Orchestrator(spec_of(tmp_path, url), {DEFAULT_VARIANT: None})
    try:
        await asyncio.sleep(10)
        assert (runs, store.scene("one").status) == (1, SceneStatus.QUEUED)
        tidied.set()
        await asyncio.sleep(10)
        assert (runs, store.scene("one").status) == (2, SceneStatus.COMPLETED)
    finally:
        await end(served)
        store.close()


def spec_of(root: Path, url: str) -> OrchestratorSpec:
    return OrchestratorSpec(
        folders=SceneFolders(root),
        database_url=url,
        settings=OrchestratorSettings(),
        clips_at_once=1,
        clips_ahead=0,
        configs={},
        image_features="",
        local_files_only=True,
        depth=None,
        reconstructor=None,
    )


async def end(served: Orchestrator) -> None:
    tasks = [served._main, served._sweeper, *served._tasks.values()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
