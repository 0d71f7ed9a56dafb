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
    spec = OrchestratorSpec(
        folders=SceneFolders(tmp_path),
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
    served = Orchestrator(spec, {DEFAULT_VARIANT: None})
    try:
        async with asyncio.timeout(5):
            while banks.left:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert store.scene("one").status is SceneStatus.CANCELLED
    finally:
        served._main.cancel()
        for task in served._tasks.values():
            task.cancel()
        await asyncio.gather(served._main, *served._tasks.values(), return_exceptions=True)
        store.close()
