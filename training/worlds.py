"""Stage ``worlds``: procedural scenes as tensors, one file a scene.

``python -m training.worlds FOLDER --scenes N`` makes the pictures, point renders, cameras and
memory of scenes with consecutive seeds, on as many processes as told. Scenes that are there are
kept, so that a run that was cut short goes on.

Owns what a scene is to the training, and its seeds: those of ``HELD_OUT`` and up are for judging
alone and are refused here. Cameras, point renders and the scores of the memory are the product's.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from multiprocessing.synchronize import Semaphore
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from training.seed_tiny import BUNDLED
from worldstereo.geometry.cameras import (
    camera_centers,
    invert_matrices,
    normalise_cameras,
    quaternion_translation,
    unify_cameras,
)
from worldstereo.memory.features import BUNDLED_FEATURES, DinoFeatures
from worldstereo.memory.plan import keyframe_indices
from worldstereo.memory.retrieval import frusta, score
from worldstereo.memory.selection import quality
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.components import load_image_encoder, load_text_encoder
from worldstereo.synthetic import make_world
from worldstereo.synthetic.scene_folder import render_paths
from worldstereo.types import Cameras, concatenate_cameras

# Seeds from here on are never trained on; those from VALIDATION on only draw curves.
VALIDATION, HELD_OUT = 9_900, 10_000
SIZE = (128, 192)
KEYFRAMES, ALIGNED = 21, 8


@dataclass(frozen=True, eq=False)
class TrainingScene:
    """One scene: P paths of F keyframes, and the B frames that a memory of it may hold.

    Bank frame 0 is the start image, then each path's ``ALIGNED`` frames, path after path.

    Attributes:
        images: [P, F, H, W, 3] uint8, exact; frame 0 of each path is the start image.
        renders: [P, F, H, W, 3] uint8 point renders; frame 0 is the start image.
        holes: [P, F, H, W] bool, where a render shows nothing.
        world_from_pixel, centers: [P, F, 3, 3] and [P, F, 3] float32 of normalised cameras.
        camera_qt: [P, F, 7] rows of the cameras.
        bank_qt: [P, B, 7] rows of the bank's cameras as each path's clip sees them.
        bank_w2c: [B, 4, 4] float32.
        scores: [P, F - 1, B] how well each bank frame serves each target.
        features: [B, D] what bank frames look like.
        qualities: [B].
        text: [512, text width] float16 embedding of the caption.
        image_tokens: [257, image width] float16 of the start image.
        caption: of the start image.
    """

    images: Tensor
    renders: Tensor
    holes: Tensor
    world_from_pixel: Tensor
    centers: Tensor
    camera_qt: Tensor
    bank_qt: Tensor
    bank_w2c: Tensor
    scores: Tensor
    features: Tensor
    qualities: Tensor
    text: Tensor
    image_tokens: Tensor
    caption: str

    def mirrored(self) -> TrainingScene:
        """The same scene with left and right exchanged: as true as the other, and another one.

        Directions of the world change the sign of their x, columns of pictures their order. What
        the frozen networks said of the pictures stays as it is.
        """
        width = self.images.shape[3]
        x = torch.tensor([-1.0, 1.0, 1.0])
        rows = torch.tensor([1.0, 1.0, -1.0, -1.0, -1.0, 1.0, 1.0])  # of a quaternion and a vector
        columns = torch.tensor([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])
        pose = torch.tensor([-1.0, 1.0, 1.0, 1.0])
        return replace(
            self,
            images=self.images.flip(3),
            renders=self.renders.flip(3),
            holes=self.holes.flip(3),
            world_from_pixel=x[:, None] * self.world_from_pixel @ columns,
            centers=x * self.centers,
            camera_qt=rows * self.camera_qt,
            bank_qt=rows * self.bank_qt,
            bank_w2c=pose[:, None] * self.bank_w2c * pose,
        )

    def save(self, file: Path) -> None:
        """Write it; the file appears by one rename."""
        tensors = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "caption"}
        partial = file.with_suffix(".partial")
        save_file({k: v.contiguous() for k, v in tensors.items()}, partial, {"c": self.caption})
        partial.rename(file)

    @classmethod
    def load(cls, file: Path) -> TrainingScene:
        """Read what ``save`` wrote."""
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return cls(**tensors, caption=opened.metadata()["c"])


class Encoders:
    """The frozen networks that describe scenes, on the CPU: those of the bundled model."""

    def __init__(self) -> None:
        mesh = ParallelMesh.single(torch.device("cpu"))
        self.features = DinoFeatures(str(BUNDLED_FEATURES))
        self.text = load_text_encoder(BUNDLED / "base", mesh, torch.float32)
        self.image = load_image_encoder(BUNDLED / "base", mesh, torch.float32)


def bank_positions(path: int) -> slice:
    """Where a path's frames are in the bank."""
    return slice(1 + path * ALIGNED, 1 + (path + 1) * ALIGNED)


def make_scene(
    seed: int,
    device: str = "cpu",
    size: tuple[int, int] = SIZE,
    encoders: Encoders | None = None,
) -> TrainingScene:
    """Take the pictures of a seed's world and all that a clip of it is conditioned on.

    Args:
        seed: below ``HELD_OUT``.
        device: where pictures and renders are computed.
        size: (height, width).
        encoders: None: loaded.
    """
    assert 0 <= seed < HELD_OUT, f"seed {seed} is held out"
    world = make_world(seed)
    _, _, rendered = render_paths(world, size, KEYFRAMES, device=device)
    renders, holes, paths = zip(*rendered.values(), strict=True)
    images = world.render(concatenate_cameras(paths), device=device).images
    images = images.reshape(len(paths), KEYFRAMES, *size, 3)
    targets = [torch.from_numpy(path.camera_from_world) for path in paths]
    aligned = list(keyframe_indices(KEYFRAMES, ALIGNED))
    bank = concatenate_cameras([paths[0][[0]], *(path[aligned] for path in paths)])
    frames = np.concatenate([images[:1, 0], images[:, aligned].reshape(-1, *size, 3)])
    bank_w2c = torch.from_numpy(bank.camera_from_world)
    normal = [normalise_cameras(target) for target in targets]
    unified = [unify_cameras(target, bank_w2c) for target in targets]
    encoders = encoders or Encoders()
    return TrainingScene(
        images=torch.from_numpy(images),
        renders=torch.from_numpy(np.stack(renders)),
        holes=torch.from_numpy(np.stack(holes)),
        world_from_pixel=torch.stack(
            [_world_from_pixel(n, path) for n, path in zip(normal, paths, strict=True)]
        ),
        centers=torch.stack([camera_centers(n) for n in normal]),
        camera_qt=torch.stack([quaternion_translation(target) for target, _ in unified]),
        bank_qt=torch.stack([quaternion_translation(seen) for _, seen in unified]),
        bank_w2c=bank_w2c,
        scores=torch.stack([score(frusta(path)[1:], frusta(bank)) for path in paths]),
        features=torch.from_numpy(np.stack([encoders.features(frame) for frame in frames])),
        qualities=torch.tensor([quality(frame) for frame in frames], dtype=torch.float64),
        text=encoders.text.encode(world.caption)[0].half(),
        image_tokens=encoders.image.encode(Image.fromarray(images[0, 0]))[0].half(),
        caption=world.caption,
    )


def _world_from_pixel(normalised: Tensor, cameras: Cameras) -> Tensor:
    """[F, 3, 3] float32: directions of rays from pixels (u, v, 1), for ``training.rays``."""
    inverse = invert_matrices(torch.from_numpy(cameras.intrinsics), "intrinsics")
    return (invert_matrices(normalised)[:, :3, :3] @ inverse).float()


def scene_file(folder: Path, seed: int) -> Path:
    """Where a seed's scene is."""
    return folder / f"{seed:05d}.safetensors"


_turns: Semaphore  # of this process, on the one device


def _begin(turns: Semaphore) -> None:
    global _turns
    _turns = turns
    torch.set_num_threads(1)


def _make_all(folder: Path, seeds: Sequence[int], device: str, size: tuple[int, int]) -> int:
    encoders = Encoders()
    for seed in seeds:
        file = scene_file(folder, seed)
        if not file.exists():
            taken = _turns.acquire(block=False)
            scene = make_scene(seed, device if taken else "cpu", size, encoders)
            scene.save(file)
            if taken:
                torch.cuda.empty_cache()  # for the others
                _turns.release()
    return len(seeds)


def make_scenes(
    folder: Path,
    seeds: Sequence[int],
    device: str,
    *,
    workers: int,
    sharing: int,
    size: tuple[int, int] = SIZE,
) -> None:
    """Make the scenes that are not there yet; prints how far it is.

    Args:
        folder: for the scenes.
        seeds: of the scenes.
        device: where pictures and renders are computed, as far as there is room.
        workers: processes.
        sharing: so many of them use the device at a time, since on a GPU more hinder each other;
            the others make their scenes on the CPU.
        size: (height, width).
    """
    folder.mkdir(parents=True, exist_ok=True)
    each = max(1, min(8, len(seeds) // workers))
    parts = [seeds[first : first + each] for first in range(0, len(seeds), each)]
    began, done, spawn = time.monotonic(), 0, get_context("spawn")
    turns = spawn.Semaphore(sharing)
    with ProcessPoolExecutor(workers, spawn, initializer=_begin, initargs=(turns,)) as pool:
        waiting = [pool.submit(_make_all, folder, part, device, size) for part in parts]
        for finished in as_completed(waiting):
            done += finished.result()
            rate = done / (time.monotonic() - began)
            print(f"{done} of {len(seeds)} scenes, {rate:.1f} a second", flush=True)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.worlds", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--validation", type=int, default=16)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sharing", type=int, default=3, help="processes on the device at a time")
    arguments = parser.parse_args()
    seeds = [*range(VALIDATION, VALIDATION + arguments.validation), *range(arguments.scenes)]
    make_scenes(
        arguments.folder,
        seeds,
        arguments.device,
        workers=arguments.workers,
        sharing=arguments.sharing,
    )


if __name__ == "__main__":
    main()
