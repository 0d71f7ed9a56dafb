"""The model that comes with the package: its files, its sizes, and that its VAE shows pictures.

How well it generates is measured in ``benchmarks``; here no weight but the VAE's need be good.
"""

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tests.sampling.clips import make_clip
from training.architecture import DINOV2, TINY
from training.export import OWN
from training.seed_tiny import PRECISE, files_of
from training.worlds import HELD_OUT
from worldstereo import WorldStereo
from worldstereo.config import VARIANTS, ControlNetConfig, Variant
from worldstereo.models.checkpoint import build_transformer
from worldstereo.models.source import (
    BASE_WEIGHTS,
    VARIANT_WEIGHTS,
    bundled_folder,
    read_model_config,
)
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.components import load_vae
from worldstereo.synthetic import make_world
from worldstereo.synthetic.scene_folder import path_cameras
from worldstereo.synthetic.world import Kind

BUNDLED = bundled_folder("worldstereo-tiny")
BASE = BUNDLED / "base"
LARGEST_BYTES = 24_000_000
TRAINED = (
    BASE / "transformer" / BASE_WEIGHTS,
    BASE / "vae" / BASE_WEIGHTS,
    *(BUNDLED / variant / VARIANT_WEIGHTS for variant in VARIANTS),
)


def config_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return {name: value for name, value in content.items() if not name.startswith("_")}


def shapes_of(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, framework="pt") as opened:
        return {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118


def shapes_of_tiny(variant: Variant) -> Mapping[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = build_transformer(variant, TINY.transformer, ControlNetConfig(**TINY.controlnet))
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def test_the_whole_is_at_most_24_mb() -> None:
    assert sum(path.stat().st_size for path in files_of(BUNDLED)) <= LARGEST_BYTES


def test_it_has_the_published_layout() -> None:
    folders = {path.name for path in BUNDLED.iterdir() if path.is_dir()}
    assert folders == {"base", "dinov2", *VARIANTS}
    index = json.loads((BASE / "model_index.json").read_text())
    parts = {name for name in index if not name.startswith("_")}
    assert parts == {path.name for path in BASE.iterdir() if path.is_dir()}
    for variant in VARIANTS:
        files = {path.name for path in (BUNDLED / variant).iterdir()}
        assert files == {"config.json", "model.safetensors"}
        config = read_model_config(BUNDLED / variant)
        assert config.nframe == 21
        assert all(side % 16 == 0 for size in config.scale_map for side in size)
        assert 128 / 192 in {height / width for height, width in config.scale_map}


def test_its_sizes_are_those_that_are_trained() -> None:
    assert config_of(BASE / "transformer") == TINY.transformer
    vae = config_of(BASE / "vae")
    statistics = {name: vae.pop(name) for name in ("latents_mean", "latents_std")}
    assert vae == TINY.vae
    assert {name: len(values) for name, values in statistics.items()} == {
        "latents_mean": TINY.vae["z_dim"],
        "latents_std": TINY.vae["z_dim"],
    }
    assert all(value > 0 for value in statistics["latents_std"])
    for variant in VARIANTS:
        assert config_of(BUNDLED / variant) == TINY.variant
    assert config_of(BUNDLED / "dinov2").items() >= DINOV2.items()


def test_the_camera_variant_is_a_controlnet_over_the_base() -> None:
    whole = shapes_of_tiny("worldstereo-camera")
    own = {name: shape for name, shape in whole.items() if name.startswith(OWN)}
    assert shapes_of(BUNDLED / "worldstereo-camera" / VARIANT_WEIGHTS) == own
    backbone = {name: shape for name, shape in whole.items() if name not in own}
    assert shapes_of(BASE / "transformer" / BASE_WEIGHTS) == backbone


@pytest.mark.parametrize("variant", ["worldstereo-memory", "worldstereo-memory-dmd"])
def test_a_memory_variant_brings_a_backbone_of_its_own(variant: Variant) -> None:
    assert shapes_of(BUNDLED / variant / VARIANT_WEIGHTS) == shapes_of_tiny(variant)


@pytest.mark.parametrize("file", TRAINED, ids=lambda path: path.parent.name)
def test_matrices_are_stored_in_bfloat16_and_the_rest_in_float32(file: Path) -> None:
    with safe_open(file, framework="pt") as opened:
        for name in opened.keys():  # noqa: SIM118  # a safetensors file is no mapping
            tensor = opened.get_tensor(name)
            rounded = tensor.ndim >= 2 and not any(part in name for part in PRECISE)
            assert tensor.dtype == (torch.bfloat16 if rounded else torch.float32), name
            assert tensor.isfinite().all(), name


def test_every_variant_is_loaded_by_name_and_generates_something_else() -> None:
    clip, frames = make_clip(), {}
    for variant in VARIANTS:
        model = WorldStereo.from_pretrained(
            "worldstereo-tiny", subfolder=variant, device="cpu", local_files_only=True
        )
        own = clip if variant != "worldstereo-camera" else make_clip(references=0)
        frames[variant] = model.generate(own, num_inference_steps=1)
        assert frames[variant].shape == clip.render_video.shape
    for one, other in combinations(VARIANTS, 2):
        assert not np.array_equal(frames[one], frames[other]), (one, other)


@pytest.mark.parametrize("kind", ["room", "objects"])
def test_its_vae_shows_pictures_of_worlds_that_it_was_not_trained_on(kind: Kind) -> None:
    world = make_world(HELD_OUT, kind)
    cameras = path_cameras(world, world.paths()["traj_eloop"], (128, 192))[[0, 7, 14]]
    pictures = world.render(cameras).images
    video = torch.from_numpy(pictures).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    vae = load_vae(BASE, ParallelMesh.single("cpu"))
    decoded = vae.decode(vae.encode(video))
    # Of each frame in dB; values lie in [-1, 1].
    psnr = 10 * torch.log10(4 / (decoded - video).square().mean(dim=(0, 1, 3, 4)))
    assert float(psnr.mean()) >= 28, psnr


def test_a_card_says_how_it_was_made_and_what_it_cannot_do() -> None:
    card = (BUNDLED / "README.md").read_text(encoding="utf-8")
    _, *pieces = re.split(r"^#+ (.+)$", card, flags=re.MULTILINE)
    sections = dict(zip(map(str.lower, pieces[::2]), pieces[1::2], strict=True))
    for topic in ("data", "steps", "limits"):
        told = [text for heading, text in sections.items() if topic in heading]
        assert any(text.strip() for text in told), topic
