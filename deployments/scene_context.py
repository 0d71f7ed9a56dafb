"""What a scene's job works with: the orchestrator's means, and the scene's memory bank."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from worldstereo_client.schemas import GpuOutput

from actors.memory_bank import OpenedScene, SceneStage
from actors.messages import ClipRequest
from configs.settings import OrchestratorSettings
from deployments.clip_job import Stream
from deployments.fair_slots import FairSlots
from deployments.records import SceneRecord
from deployments.store import Store

# Told what is being done, how much of it is done, and of how much; 0: nobody can say.
OnStage = Callable[[str, int, int], None]
# A scene's id, the output, and who is told.
MakeOutput = Callable[[str, GpuOutput, OnStage], Awaitable[None]]


class Memory(Protocol):
    """A scene's memory bank, as ``actors.memory_bank.SceneBank`` offers it."""

    actor: Any

    async def open(self, epoch: str) -> OpenedScene:
        """Plan the scene, or read its plan."""
        ...

    async def reconstruct(self, outputs: Collection[str]) -> None:
        """Write what the result holds beside its clips."""
        ...

    async def stage(self) -> SceneStage:
        """What it does that takes long."""
        ...

    async def stop(self) -> None:
        """End ``reconstruct`` soon."""
        ...

    async def finish(self, states: Mapping[str, str]) -> None:
        """Write the manifest."""
        ...

    def close(self) -> None:
        """Let the memory go."""
        ...


@dataclass(frozen=True)
class SceneContext:
    """What the orchestrator gives to each scene.

    Attributes:
        epoch: of the orchestrator.
        store: what is known of all scenes; its writes are those of the leases' holder.
        settings: limits and deadlines.
        slots: for clips of the scene's variant in flight.
        dispatch: offers an attempt to the replicas of the scene's variant.
        memory: finds or makes the scene's memory bank.
        make: has an output made that takes a GPU, of a scene's committed clips; is told the
            stage, step and steps. Cancelling it stops the work.
    """

    epoch: str
    store: Store
    settings: OrchestratorSettings
    slots: FairSlots
    dispatch: Callable[[ClipRequest], Stream]
    memory: Callable[[SceneRecord], Awaitable[Memory]]
    make: MakeOutput
