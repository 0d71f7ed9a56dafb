"""The released sizes on one GPU: a full checkpoint loads, one clip with 8 references is made.

``python -m benchmarks.clip FOLDER [--compile]`` expects what full_size_checkpoint.py wrote.
Weights are random: honest for time and memory, never for quality. Seconds are wall-clock, each
stage measured in one run after a warm-up clip of one step; encoders and VAE run in float32, as
published.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.environment import write_result
from worldstereo import WorldStereo
from worldstereo.config import ComputeOptions
from worldstereo.types import Cameras, Clip, Progress, References

HEIGHT, WIDTH, FRAMES, REFERENCES = 480, 768, 21, 8


def synthetic_clip() -> Clip:
    """A clip of the product's size: noise images, a camera that moves sideways."""
    random = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return random.integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)

    def cameras(count: int) -> Cameras:
        poses = np.tile(np.eye(4, dtype=np.float32), (count, 1, 1))
        poses[:, 0, 3] = np.linspace(0, 1, count)
        k = np.array([[700, 0, WIDTH / 2], [0, 700, HEIGHT / 2], [0, 0, 1]], dtype=np.float32)
        return Cameras(poses, np.tile(k, (count, 1, 1)), HEIGHT, WIDTH)

    return Clip(
        trajectory_id="renders/benchmark",
        prompt="a room",
        start_image=images(1)[0],
        render_video=images(FRAMES),
        hole_mask=random.random((FRAMES, HEIGHT, WIDTH)) < 0.3,
        cameras=cameras(FRAMES),
        references=References(
            ids=tuple(str(index) for index in range(REFERENCES)),
            frames=images(REFERENCES),
            cameras=cameras(REFERENCES),
            ref_index=tuple(range(0, 2 * REFERENCES, 2)),
        ),
        seed=1024,
        draw=0,
    )


def timed_clip(model: WorldStereo, clip: Clip, steps: int) -> tuple[dict[str, float], list[float]]:
    """Seconds of each stage and of each denoising step."""
    marks: list[tuple[Progress, float]] = []

    def mark(progress: Progress) -> None:
        torch.cuda.synchronize()
        marks.append((progress, time.perf_counter()))

    frames = model.generate(clip, num_inference_steps=steps, on_stage=mark)
    torch.cuda.synchronize()
    end = time.perf_counter()
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    starts = {p.stage: t for p, t in reversed(marks)}
    denoise = [t for p, t in marks if p.stage == "denoise"]
    stages = {
        "encode_s": starts["denoise"] - starts["encode"],
        "denoise_s": starts["decode"] - starts["denoise"],
        "decode_s": end - starts["decode"],
    }
    return stages, [after - before for before, after in itertools.pairwise(denoise)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--variant", default="worldstereo-memory-dmd")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--attention", default="auto")
    arguments = parser.parse_args()
    began = time.perf_counter()
    model = WorldStereo.from_pretrained(
        str(arguments.folder),
        subfolder=arguments.variant,
        device="cuda",
        local_files_only=True,
        options=ComputeOptions(compile=arguments.compile, attention=arguments.attention),
    )
    torch.cuda.synchronize()
    load_s = time.perf_counter() - began
    parameters = sum(p.numel() for p in model.transformer.parameters())
    weights = sum(p.nbytes for p in model.transformer.parameters())
    allocated = torch.cuda.memory_allocated()
    began = time.perf_counter()
    if arguments.compile:
        model.warm_up()
        torch.cuda.synchronize()
    warm_up_s = time.perf_counter() - began
    clip = synthetic_clip()
    model.generate(clip, num_inference_steps=1)
    torch.cuda.reset_peak_memory_stats()
    stages, steps = timed_clip(model, clip, 4)
    name = "clip_compiled" if arguments.compile else "clip"
    result = {
        "variant": arguments.variant,
        "clip": f"{FRAMES} x {HEIGHT} x {WIDTH}, {REFERENCES} references, 4 steps, random weights",
        "parameters": parameters,
        "transformer_bytes": weights,
        "options": {"compile": arguments.compile, "attention": arguments.attention},
        "load_s": load_s,
        "warm_up_s": warm_up_s,
        "allocated_after_load_bytes": allocated,
        "peak_bytes": torch.cuda.max_memory_allocated(),
        **stages,
        "forward_median_s": statistics.median(steps),
        "forward_s": steps,
    }
    print(write_result(name, result).read_text())


if __name__ == "__main__":
    main()
