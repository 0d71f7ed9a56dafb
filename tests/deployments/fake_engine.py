"""An engine for cluster tests: the real protocol, no model.

Its frames are made from everything that a clip holds, so a clip that differs in one bit anywhere
gives other frames, and so does every later clip that refers to it. A step takes ``STEP_S``, and
``LONG_STEP_S`` where more than ``STEPS`` steps are asked for.
"""

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from actors.engine import EngineSpec
from worldstereo.types import Clip, Progress, UInt8

STEP_S = 0.05
LONG_STEP_S = 0.4
STEPS = 4
# In a prompt, before the path of a file.
BREAKS_WHILE = "this clip breaks the engine while there is "
WAITS_WHILE = "this clip waits while there is "


class FakeEngine:
    """Implements ``actors.engine.ClipEngine``."""

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        tell = on_stage or (lambda progress: None)
        steps = num_inference_steps or STEPS
        tell(Progress("encode"))
        if _names_a_file(clip.prompt, BREAKS_WHILE):
            raise RuntimeError("the engine broke")
        while _names_a_file(clip.prompt, WAITS_WHILE):
            time.sleep(STEP_S)
        tell(Progress("denoise", 0, steps))
        for step in range(1, steps + 1):
            time.sleep(LONG_STEP_S if steps > STEPS else STEP_S)
            tell(Progress("denoise", step, steps))
        tell(Progress("decode"))
        return fake_frames(clip)


def _names_a_file(prompt: str, before: str) -> bool:
    path = prompt.partition(before)[2]
    return bool(path) and Path(path).exists()


def fake_frames(clip: Clip) -> UInt8:
    """[F, height, width, 3]: the render, each frame shifted in colour by what the clip holds."""
    digest = hashlib.sha256(f"{clip.prompt} {clip.seed} {clip.draw} {clip.size}".encode())
    arrays = [clip.start_image, clip.render_video, clip.hole_mask]
    arrays += [clip.cameras.camera_from_world, clip.cameras.intrinsics]
    if clip.references is not None:
        digest.update(repr((clip.references.ids, clip.references.ref_index)).encode())
        arrays += [clip.references.frames, clip.references.cameras.camera_from_world]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    shift = np.random.default_rng(list(digest.digest())).integers(
        0, 256, (len(clip.render_video), 1, 1, 3), dtype=np.uint8
    )
    frames = clip.render_video + shift
    frames[0] = clip.start_image
    return frames


def load(spec: EngineSpec, mesh: object) -> FakeEngine:
    return FakeEngine()
