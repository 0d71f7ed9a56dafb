"""The published model's sizes, for tests of what it needs and of where it runs."""

import json
from pathlib import Path
from typing import Any

from cluster.footprint import ENCODER_PARAMETERS, Footprint, footprint_of
from worldstereo.config import ControlNetConfig, ModelConfig, Variant
from worldstereo.models.source import BackboneConfig
from worldstereo.parallel.layout import ParallelLayout

ROOT = Path(__file__).parents[2]
FULL_SIZE = json.loads((ROOT / "tests/golden/transformer/full_size_keys.json").read_text())
BACKBONE = BackboneConfig(**FULL_SIZE["backbone"])
CONTROLNET = ControlNetConfig(**FULL_SIZE["controlnet_cfg"])
CONFIG = ModelConfig(
    base_model="base", controlnet_cfg=CONTROLNET, nframe=21, latent_cond_mode="full_vae"
)
GUIDED: Variant = "worldstereo-memory"
DISTILLED: Variant = "worldstereo-memory-dmd"


def full_size(variant: Variant, *, encoders: int = 4, **config: Any) -> Footprint:
    return footprint_of(
        BACKBONE,
        CONFIG.model_copy(update=config),
        variant,
        max_references=8,
        precision_bytes=2,
        encoder_bytes=ENCODER_PARAMETERS * encoders,
    )


def layout(cfg: int = 1, ulysses: int = 1, *, fsdp: bool = False) -> ParallelLayout:
    return ParallelLayout.model_validate({"cfg": cfg, "ulysses": ulysses, "fsdp": fsdp})
