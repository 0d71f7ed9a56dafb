"""Engines for tests of workers: one that can be watched and stopped, and ones that fail."""

import os
import time
from collections.abc import Callable

from actors.engine import EngineSpec
from tests.deployments.fake_engine import FakeEngine, fake_frames
from worldstereo.errors import CheckpointError, GenerationError
from worldstereo.types import Clip, Progress, UInt8

SLOW_STEP_S = 0.05


def spec_of(factory: str) -> EngineSpec:
    return EngineSpec(
        factory=f"tests.actors.engines:{factory}",
        source="",
        variant="worldstereo-memory-dmd",
        device="cpu",
        precision="float32",
        torch_threads=None,
        local_files_only=True,
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


def choosy(spec: EngineSpec) -> ChoosyEngine:
    return ChoosyEngine()


def instant(spec: EngineSpec) -> FakeEngine:
    return FakeEngine()


def no_weights(spec: EngineSpec) -> FakeEngine:
    raise CheckpointError("no weights", where="model.safetensors")


def never(spec: EngineSpec) -> FakeEngine:
    time.sleep(3600)
    raise AssertionError
