"""How well the bundled VAE shows keyframes of held-out worlds: ``python -m benchmarks.tiny_vae``.

Exact pictures and point renders of the scenes that docs/worldstereo-tiny/README.md judges the
whole model on, encoded and decoded; writes ``results/tiny_vae.json``.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from torch import Tensor

from benchmarks.environment import write_result
from training.worlds import HELD_OUT, KEYFRAMES, SIZE
from worldstereo.models.source import bundled_folder
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.components import load_vae
from worldstereo.sampling.vae import KeyframeVAE
from worldstereo.synthetic import make_world
from worldstereo.synthetic.scene_folder import render_paths

# Every second keyframe of a path is looked at, from the first that is no input.
STRIDE = 2


def psnr(vae: KeyframeVAE, pictures: np.ndarray) -> Tensor:
    """dB [F] of pictures [F, H, W, 3] uint8 behind encoder and decoder."""
    video = torch.from_numpy(pictures).permute(3, 0, 1, 2)[None] / 127.5 - 1
    error = (vae.decode(vae.encode(video)).clamp(-1, 1) - video).square().mean(dim=(0, 1, 3, 4))
    return 10 * torch.log10(4 / error)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_vae", description=__doc__)
    parser.add_argument("--worlds", type=int, default=32)
    worlds = parser.parse_args().worlds
    vae = load_vae(bundled_folder("worldstereo-tiny") / "base", ParallelMesh.single("cpu"))
    exact, rendered = [], []
    for seed in range(HELD_OUT, HELD_OUT + worlds):
        world = make_world(seed)
        _, _, paths = render_paths(world, SIZE, KEYFRAMES)
        for render, _, cameras in paths.values():
            exact.append(psnr(vae, world.render(cameras[list(range(1, KEYFRAMES, STRIDE))]).images))
            rendered.append(psnr(vae, np.ascontiguousarray(render[1::STRIDE])))
        print(seed, f"{torch.cat(exact).mean():.2f} dB", flush=True)
    pictures, renders = torch.cat(exact), torch.cat(rendered)
    write_result(
        "tiny_vae",
        {
            "worlds": worlds,
            "first_seed": HELD_OUT,
            "size": SIZE,
            "frames": len(pictures),
            "psnr_db": round(float(pictures.mean()), 2),
            "worst_frame_psnr_db": round(float(pictures.min()), 2),
            "psnr_of_renders_db": round(float(renders.mean()), 2),
        },
    )


if __name__ == "__main__":
    main()
