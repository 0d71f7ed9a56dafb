"""Engines for tests of workers: ones that can be watched and stopped, and ones that fail."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from actors.engine import EngineSpec
from tests.deployments.fake_engine import FakeEngine, fake_frames
from worldstereo.errors import CheckpointError, GenerationError
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.types import Clip, Progress, UInt8

if TYPE_CHECKING:
    from worldstereo.parallel.mesh import ParallelMesh

SLOW_STEP_S = 0.05
TWO_RANKS = ParallelLayout(ulysses=2)

# The step before which a rank of the meeting engine does what it is told to.
FAULT_STEP = 3


def spec_of(factory: str, parallel: ParallelLayout | None = None, source: str = "") -> EngineSpec:
    return EngineSpec(
        factory=f"tests.actors.engines:{factory}",
        source=source,
        variant="worldstereo-memory-dmd",
        device="cpu",
        precision="float32",
        torch_threads=None,
        local_files_only=True,
        parallel=parallel or ParallelLayout(),
    )


class ChoosyEngine:
    """Does what the number of steps says: 1 breaks, 2 fails, 3 dies, others are steps."""

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        assert on_stage is not None
        steps = num_inference_steps or 4
        on_stage(Progress("encode"))
        if steps == 1:
            raise ZeroDivisionError("broke")
        if steps == 2:
            raise GenerationError("failed", where=clip.trajectory_id)
        if steps == 3:
            os._exit(3)
        for step in range(1, steps + 1):
            time.sleep(SLOW_STEP_S)
            on_stage(Progress("denoise", step, steps))
        on_stage(Progress("decode"))
        return fake_frames(clip)


class MeetingEngine:
    """Ranks that meet in each step, and do once what a file in ``faults`` tells them to.

    The file is called as ``fault`` says. ``memory``: the device runs out of memory; ``hang``: an
    exchange that does not end; ``stop``: the process stands still; ``die``: it ends; ``break``:
    something else fails.
    """

    def __init__(self, mesh: ParallelMesh, faults: Path) -> None:
        self._mesh = mesh
        self._faults = faults

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        assert on_stage is not None
        tell = on_stage
        steps = num_inference_steps or 8
        self._mesh.agree(lambda: tell(Progress("encode")))
        for step in range(1, steps + 1):
            time.sleep(SLOW_STEP_S)
            if step == FAULT_STEP:
                self._do_what_a_file_says()
            self._meet(step)
            done = Progress("denoise", step, steps)
            self._mesh.agree(lambda done=done: tell(done))  # type: ignore[misc]
        return fake_frames(clip)

    def _meet(self, step: int) -> None:
        import torch
        import torch.distributed as dist

        total = torch.tensor([step * (self._mesh.rank + 1)])
        dist.all_reduce(total)
        assert int(total) == step * sum(range(1, self._mesh.size + 1))

    def _do_what_a_file_says(self) -> None:
        import torch

        for file in self._faults.glob(f"*-{self._mesh.rank}"):
            file.unlink()  # so that the next attempt succeeds
            match file.name.partition("-")[0]:
                case "memory":
                    free = 7 - self._mesh.rank
                    raise torch.OutOfMemoryError(f"out of memory, {free} GiB are free\nand more")
                case "break":
                    raise ZeroDivisionError(f"rank {self._mesh.rank} broke")
                case "hang":
                    time.sleep(3600)
                case "stop":
                    os.kill(os.getpid(), signal.SIGSTOP)
                case "die":
                    os._exit(3)


def fault(folder: Path, kind: str, rank: int) -> None:
    """Make this rank of a ``meeting`` engine fail once, at the next clip's ``FAULT_STEP``."""
    (folder / f"{kind}-{rank}").touch()


def meeting(spec: EngineSpec, mesh: ParallelMesh | None) -> MeetingEngine:
    assert mesh is not None
    return MeetingEngine(mesh, Path(spec.source))


def no_weights_on_rank_1(spec: EngineSpec, mesh: ParallelMesh | None) -> MeetingEngine:
    assert mesh is not None
    if mesh.rank == 1:
        raise CheckpointError("no weights", where="model.safetensors")
    mesh.agree(lambda: None)  # waits for rank 1
    raise AssertionError


def dies_on_rank_1(spec: EngineSpec, mesh: ParallelMesh | None) -> MeetingEngine:
    assert mesh is not None
    if mesh.rank == 1:
        os._exit(3)
    mesh.agree(lambda: None)  # rank 1 closes the connection
    raise AssertionError


def choosy(spec: EngineSpec, mesh: object) -> ChoosyEngine:
    return ChoosyEngine()


def instant(spec: EngineSpec, mesh: object) -> FakeEngine:
    return FakeEngine()


def no_weights(spec: EngineSpec, mesh: object) -> FakeEngine:
    raise CheckpointError("no weights", where="model.safetensors")


def never(spec: EngineSpec, mesh: object) -> FakeEngine:
    time.sleep(3600)
    raise AssertionError
