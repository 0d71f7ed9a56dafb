"""A model family of the published sizes, without weights, and GPUs that it may get."""

import json
from pathlib import Path
from typing import Any

from cluster.topology import GIB
from configs.settings import ModelSettings
from tests.cluster.full_size import FULL_SIZE
from worldstereo.config import VARIANTS


def published_model(folder: Path, **changes: Any) -> ModelSettings:
    """Settings of a model whose configuration files are written to ``folder``."""
    distilled = {"dmd_start_steps": 1000, "dmd_end_steps": 50, "dmd_steps": 4, "gen_shift": 5.0}
    config = {
        "base_model": "base",
        "controlnet_cfg": FULL_SIZE["controlnet_cfg"],
        "nframe": 21,
        "latent_cond_mode": "full_vae",
    }
    contents = {name: config | distilled for name in VARIANTS}
    for name, content in {**contents, "base/transformer": FULL_SIZE["backbone"]}.items():
        file = folder / name / "config.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))
    settings = {
        "source": str(folder),
        "image_features": "facebook/dinov2-base",
        "precision": "bfloat16",
        "device": "cuda",
        "worker_num_cpus": 4,
        "worker_num_gpus": 1,
    }
    return ModelSettings.model_validate(settings | changes)


class FakeGpus:
    """Nodes with these GPUs, of this memory; None: nobody may ask for it."""

    def __init__(self, *per_node: int, gib: float | None = 139.8) -> None:
        self._per_node, self._gib = per_node, gib

    def per_node(self) -> tuple[int, ...]:
        return self._per_node

    def bytes_each(self) -> int:
        assert self._gib is not None, "the memory is of no concern here"
        return int(self._gib * GIB)
