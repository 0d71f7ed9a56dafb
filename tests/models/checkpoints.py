"""Tiny checkpoints on disk, written as the published ones are laid out."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.models.tiny import BACKBONE, CONFIG, CONTROLNET, tiny_model
from worldstereo.config import ComputeOptions, ModelConfig, Variant
from worldstereo.models.checkpoint import load_transformer
from worldstereo.models.transformer import WorldStereoTransformer
from worldstereo.parallel.mesh import ParallelMesh

VARIANT_ONLY = ("controlnet.", "camera_embedding.")


class Checkpoint:
    """A base model and one variant under a folder; each part may be written anew."""

    def __init__(self, root: Path, variant: Variant, **controlnet: Any) -> None:
        self.variant = variant
        self.config = ModelConfig.model_validate(
            CONFIG | {"controlnet_cfg": CONTROLNET | controlnet}
        )
        self.folder = root / variant
        self.transformer = root / "base" / "transformer"
        self.weights = dict(tiny_model(variant, **controlnet).state_dict())
        for folder in (self.folder, self.transformer):
            folder.mkdir(parents=True)
        (self.folder / "config.json").write_text(self.config.model_dump_json())
        (self.transformer / "config.json").write_text(json.dumps(BACKBONE))
        self.write_variant(self.weights)
        self.write_base(
            {name: value + 1 for name, value in self.weights.items() if is_backbone(name)}
        )

    def write_variant(self, tensors: Mapping[str, Tensor]) -> None:
        save_file(contiguous(tensors), self.folder / "model.safetensors")

    def write_base(self, tensors: Mapping[str, Tensor]) -> None:
        name = "diffusion_pytorch_model.safetensors"
        save_file(contiguous(tensors), self.transformer / name)

    def load(self, dtype: torch.dtype = torch.float32) -> WorldStereoTransformer:
        return load_transformer(
            self.variant,
            self.transformer,
            self.folder,
            self.config,
            mesh=ParallelMesh.single("cpu"),
            dtype=dtype,
            options=ComputeOptions(),
        )


def is_backbone(name: str) -> bool:
    return not name.startswith(VARIANT_ONLY)


def contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in tensors.items()}


def write_shards(folder: Path, name: str, tensors: Mapping[str, Tensor], count: int) -> list[Path]:
    """The tensors in ``count`` files and an index, as diffusers writes large models."""
    stem = name.removesuffix(".safetensors")
    files = [f"{stem}-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    owner = {key: files[i % count] for i, key in enumerate(tensors)}
    for file in files:
        part = {key: value for key, value in tensors.items() if owner[key] == file}
        save_file(contiguous(part), folder / file)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": owner}))
    (folder / name).unlink(missing_ok=True)
    return [folder / file for file in files]
