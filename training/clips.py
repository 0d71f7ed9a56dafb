"""Clips for training the generator: latents of all scenes on one device, drawn in batches.

Owns how a batch is put together: which path of which scene, what the memory holds by then, which
frames of it become references (the product's own retrieval), and when a caption is dropped. The
tensors are those that the transformer takes; a batch of B clips is a dictionary of

    latents [B, z, F, h, w] float32, what is to be generated, and error_weights of the same shape;
    start [B, 4 + z, F, h, w], render_latent [B, z, F, h, w], render_mask [B, 1, F, H, W],
    camera_embedding [B, 6, F, H, W];
    text and negative [B, 512, text width]: caption and negative prompt; image [B, 257, width];
    with R references also reference_latent [B, 4 + 2 z, R, h, w], camera_qt [B, F, 7],
    camera_qt_ref [B, R, 7], and the rotary tables cos and sin [B, tokens, 1, head size].
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from training.seed_tiny import BUNDLED
from training.worlds import ALIGNED, HELD_OUT, VALIDATION, TrainingScene, bank_positions
from worldstereo.geometry.rays import OFFSET_X, OFFSET_Y
from worldstereo.memory.plan import keyframe_indices
from worldstereo.memory.retrieval import first_uses, nearest
from worldstereo.memory.selection import select_rows
from worldstereo.models.attention import Rotary
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.components import load_text_encoder
from worldstereo.sampling.conditions import MASK_CHANNELS
from worldstereo.sampling.vae import KeyframeVAE

FILE = "latents.pt"
# Share of memories with photographs, and how many they have at most.
PHOTOGRAPHED, MOST_PHOTOGRAPHS = 0.5, 6
# An error that lies in a hole of the render counts so much more.
HOLE_WEIGHT = 2.0
# How much each channel of latents shows is measured on so many pictures, by errors of this size.
PROBED, PROBE = 32, 0.3
# Per scene, on the device; and what the references are chosen by, on the CPU.
_TENSORS = ("holes", "world_from_pixel", "centers", "camera_qt", "bank_qt", "text", "image_tokens")
_CHOICES = ("scores", "bank_w2c", "features", "qualities")


class Scenes:
    """S scenes of P paths as latents.

    Attributes:
        tensors: ``images`` and ``renders`` [S, P, F, z, h, w] bfloat16, normalised, and those of
            ``TrainingScene`` that clips are conditioned on, all on the device.
        choices: numpy arrays that references are chosen by.
        channels: [z] how much an error of each channel shows in pictures, 1 on average.
        zero: [z, h, w] latents of a frame of zeros.
        negative: [512, text width] embedding of the negative prompt.
    """

    def __init__(self, stored: dict[str, Any], device: str) -> None:
        self.tensors: dict[str, Tensor] = {
            name: value.to(device) for name, value in stored["tensors"].items()
        }
        self.choices: dict[str, np.ndarray] = {
            name: value.numpy() for name, value in stored["choices"].items()
        }
        self.channels: Tensor = stored["channels"].to(device)
        self.zero: Tensor = stored["zero"].to(device)
        self.negative: Tensor = stored["negative"].to(device)

    def __len__(self) -> int:
        return len(self.tensors["images"])

    @property
    def paths(self) -> int:
        """P."""
        return self.tensors["images"].shape[1]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return self.zero.device


def encode_scenes(
    worlds: Path, vae: KeyframeVAE, negative_prompt: str, *, validation: bool
) -> dict[str, Any]:
    """What ``Scenes`` are made from: all scenes in a folder, each behind it mirrored.

    Args:
        worlds: folder of the stage ``worlds``.
        vae: trained, on the device to compute on.
        negative_prompt: of the variants.
        validation: those seeds, or the others.
    """
    files = sorted(worlds.glob("*.safetensors"))
    chosen = [f for f in files if (VALIDATION <= int(f.stem) < HELD_OUT) == validation]
    assert chosen, f"no scenes in {worlds}"
    tensors: dict[str, list[Tensor]] = {}
    choices: dict[str, list[Tensor]] = {}
    for file in chosen:
        made = TrainingScene.load(file)
        for scene in (made, made.mirrored()):
            for name in ("images", "renders"):
                tensors.setdefault(name, []).append(_latents(vae, getattr(scene, name)))
            for name in _TENSORS:
                tensors.setdefault(name, []).append(getattr(scene, name))
            for name in _CHOICES:
                choices.setdefault(name, []).append(getattr(scene, name))
    size = made.images.shape[2:4]
    text = load_text_encoder(
        BUNDLED / "base", ParallelMesh.single(torch.device("cpu")), torch.float32
    )
    return {
        "tensors": {name: torch.stack(found) for name, found in tensors.items()},
        "channels": channel_weights(vae, tensors["images"][0].flatten(0, 1)[:PROBED].float()),
        "choices": {name: torch.stack(found) for name, found in choices.items()},
        "zero": vae.encode(torch.zeros(1, 3, 1, *size))[0, :, 0].cpu(),
        "negative": text.encode(negative_prompt)[0].half(),
    }


def _latents(vae: KeyframeVAE, pictures: Tensor) -> Tensor:
    """[P, F, z, h, w] bfloat16 on the CPU of [P, F, H, W, 3] uint8."""
    paths, frames = pictures.shape[:2]
    video = pictures.flatten(0, 1).to(vae.vae.device).permute(3, 0, 1, 2)[None] / 127.5 - 1
    latents = vae.encode(video)[0].transpose(0, 1)
    return latents.unflatten(0, (paths, frames)).bfloat16().cpu()


@torch.no_grad()
def channel_weights(vae: KeyframeVAE, latents: Tensor) -> Tensor:
    """[z] on the CPU: squared error of pictures for an error in each channel, 1 on average.

    Args:
        vae: trained.
        latents: [N, z, h, w] of some pictures.
    """
    random = torch.Generator().manual_seed(0)
    exact, found = vae.decode(latents.transpose(0, 1)[None]), []
    for channel in range(latents.shape[1]):
        moved = latents.clone()
        moved[:, channel] += PROBE * torch.randn(moved[:, channel].shape, generator=random)
        found.append((vae.decode(moved.transpose(0, 1)[None]) - exact).square().mean())
    weights = torch.stack(found).cpu()
    return weights / weights.mean()


def error_weights(render_mask: Tensor, channels: Tensor) -> Tensor:
    """[B, z, F, h, w]: how much an error of each latent counts, 1 on average.

    Args:
        render_mask: [B, 1, F, 8 h, 8 w], 1 in holes.
        channels: [z] how much each channel does.
    """
    holes = 1 + HOLE_WEIGHT * functional.avg_pool3d(render_mask, (1, 8, 8))
    return holes / holes.mean() * channels.view(1, -1, 1, 1, 1)


@dataclass(frozen=True)
class Choice:
    """Which clips a batch has: scenes and paths [B], bank positions and ``ref_index`` [B, R]."""

    scenes: np.ndarray
    paths: np.ndarray
    frames: np.ndarray
    ref_index: np.ndarray


class Chooser:
    """Draws clips and their references at random."""

    def __init__(self, scenes: Scenes, seed: int) -> None:
        self._scenes, self._random = scenes, np.random.default_rng(seed)

    def choose(self, count: int, references: int) -> Choice:
        """``count`` clips with so many references each; 0: none.

        A clip may be any path after any of the others: the memory holds the start, their frames
        and, half the time, some photographs, any frames of any path. Where not as many as wanted
        are retrieved another clip is drawn.
        """
        found: list[tuple[int, int, tuple[int, ...], tuple[int, ...]]] = []
        while len(found) < count:
            scene = int(self._random.integers(len(self._scenes)))
            path = int(self._random.integers(self._scenes.paths))
            if not references:
                found.append((scene, path, (), ()))
                continue
            bank = self._memory(path)
            frames, index = self.retrieve(scene, path, bank, references)
            if len(frames) == references:
                found.append((scene, path, frames, index))
        scene_list, path_list, frame_list, index_list = zip(*found, strict=True)
        return Choice(
            np.array(scene_list), np.array(path_list), np.array(frame_list), np.array(index_list)
        )

    def _memory(self, path: int) -> list[int]:
        """Bank positions that the memory of a clip of this path holds."""
        random, paths = self._random, self._scenes.paths
        others = random.permutation([p for p in range(paths) if p != path])
        bank = [0]
        for other in others[: int(random.integers(len(others) + 1))].tolist():
            bank += range(bank_positions(other).start, bank_positions(other).stop)
        if random.random() < PHOTOGRAPHED:
            count = int(random.integers(1, MOST_PHOTOGRAPHS + 1))
            taken = random.choice(np.arange(1, 1 + paths * ALIGNED), count, replace=False)
            bank += [place for place in taken.tolist() if place not in bank]
        return bank

    def retrieve(
        self, scene: int, path: int, bank: list[int], most: int
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """References among bank positions, in order of first use, and their ``ref_index``."""
        choices = self._scenes.choices
        scores = choices["scores"][scene, path][:, bank]
        rows = nearest(scores, {})
        names = [str(bank[column]) for column in rows]
        frames, index = first_uses(names)
        if len(frames) > most:
            positions = np.array([bank[column] for column in rows])
            chosen = select_rows(
                choices["bank_w2c"][scene][positions],
                choices["features"][scene][positions],
                choices["qualities"][scene][positions],
                most,
            )
            again = scores[:, [rows[row] for row in chosen]].argmax(axis=1)
            frames, index = first_uses([names[chosen[number]] for number in again])
        return tuple(int(name) for name in frames), index


class Clips:
    """Batches of clips.

    Args:
        scenes: to draw from.
        model: whose rotary tables are needed.
        drop_text: share of clips whose caption is the negative prompt.
    """

    def __init__(
        self, scenes: Scenes, model: WorldStereoTransformer, drop_text: float = 0.0
    ) -> None:
        self.scenes, self._model, self._drop_text = scenes, model, drop_text
        self._tables: dict[tuple[int, ...], Rotary] = {}

    def drawn(
        self, count: int, references: Mapping[int, float], seed: int = 0
    ) -> Iterator[dict[str, Tensor]]:
        """Batches without end, chosen ahead on a thread.

        Args:
            count: clips of a batch.
            references: numbers of references and the share of batches that have so many.
            seed: of what is drawn.
        """
        ready: queue.Queue[Choice] = queue.Queue(maxsize=4)
        chooser, random = Chooser(self.scenes, seed), np.random.default_rng(seed + 1)

        def ahead() -> None:
            while True:
                drawn = random.choice(list(references), p=list(references.values()))
                ready.put(chooser.choose(count, int(drawn)))

        threading.Thread(target=ahead, daemon=True).start()
        while True:
            yield self.batch(ready.get())

    def batch(self, choice: Choice) -> dict[str, Tensor]:
        """The tensors of chosen clips."""
        device, held = self.scenes.device, self.scenes.tensors
        scene, path = (torch.from_numpy(x).to(device) for x in (choice.scenes, choice.paths))
        latents = held["images"][scene, path].transpose(1, 2).float()
        count, channels, frames, height, width = latents.shape
        start = latents.new_zeros(count, MASK_CHANNELS + channels, frames, height, width)
        start[:, :MASK_CHANNELS, 0] = 1
        start[:, MASK_CHANNELS:] = self.scenes.zero[:, None]
        start[:, MASK_CHANNELS:, 0] = latents[:, :, 0]
        holes = held["holes"][scene, path]
        directions, centers = held["world_from_pixel"][scene, path], held["centers"][scene, path]
        mask = holes[:, None].float()
        negative = self.scenes.negative.float().expand(count, -1, -1)
        dropped = torch.rand(count, 1, 1, device=device) < self._drop_text
        drawn = {
            "latents": latents,
            "error_weights": error_weights(mask, self.scenes.channels),
            "start": start,
            "render_latent": held["renders"][scene, path].transpose(1, 2).float(),
            "render_mask": mask,
            "camera_embedding": rays(directions, centers, *holes.shape[2:]),
            "text": torch.where(dropped, negative, held["text"][scene].float()),
            "negative": negative,
            "image": held["image_tokens"][scene].float(),
        }
        if choice.frames.shape[1]:
            drawn |= self._of_references(choice, scene, path, (frames, height, width))
        return drawn

    def _of_references(
        self, choice: Choice, scene: Tensor, path: Tensor, grid: tuple[int, int, int]
    ) -> dict[str, Tensor]:
        held, device = self.scenes.tensors, self.scenes.device
        numbers = torch.from_numpy(choice.frames).to(device)
        # Where a bank frame is among the scene's pictures.
        later = torch.tensor(keyframe_indices(grid[0], ALIGNED), device=device)
        owner = (numbers - 1).clamp(min=0) // ALIGNED
        frame = torch.where(numbers == 0, 0, later[(numbers - 1).clamp(min=0) % ALIGNED])
        latents = held["images"][scene[:, None], owner, frame].transpose(1, 2).float()
        ones = torch.ones_like(latents[:, :MASK_CHANNELS])
        tables = [self._rotary(grid, tuple(row)) for row in choice.ref_index.tolist()]
        return {
            "reference_latent": torch.cat([latents, ones, latents], dim=1),
            "camera_qt": held["camera_qt"][scene, path],
            "camera_qt_ref": held["bank_qt"][scene[:, None], path[:, None], numbers],
            "cos": torch.cat([cos for cos, _ in tables]),
            "sin": torch.cat([sin for _, sin in tables]),
        }

    def _rotary(self, grid: tuple[int, int, int], index: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        if index not in self._tables:
            if len(self._tables) >= 512:
                self._tables.clear()
            self._tables[index] = self._model.rotary_tables(*grid, index)
        return self._tables[index]


def rays(world_from_pixel: Tensor, centers: Tensor, height: int, width: int) -> Tensor:
    """Plücker coordinates [B, 6, F, H, W] of B clips at once; see ``plucker_embedding``.

    Args:
        world_from_pixel: [B, F, 3, 3] of normalised cameras.
        centers: [B, F, 3] theirs.
        height: rows H.
        width: columns W.
    """
    device = centers.device
    x = torch.arange(width, device=device) + OFFSET_X
    y = torch.arange(height, device=device) + OFFSET_Y
    pixels = torch.stack(
        [
            x.expand(height, width),
            y[:, None].expand(height, width),
            torch.ones_like(x).expand(height, width),
        ]
    )
    direction = torch.einsum("bfij,jhw->bifhw", world_from_pixel, pixels)
    direction = direction / direction.norm(dim=1, keepdim=True)
    center = centers.transpose(1, 2)[..., None, None].expand_as(direction)
    return torch.cat([direction, torch.linalg.cross(center, direction, dim=1)], dim=1)
