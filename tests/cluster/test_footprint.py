"""Bytes that a replica needs: parameters as the real classes have them, memory as measured."""

import json
import weakref
from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from cluster.footprint import ENCODER_PARAMETERS, Footprint, count_parameters, footprint_of
from tests.cluster.full_size import (
    BACKBONE,
    CONFIG,
    CONTROLNET,
    DISTILLED,
    FULL_SIZE,
    GUIDED,
    ROOT,
    full_size,
    layout,
)
from tests.models import tiny
from worldstereo.config import VARIANTS, ControlNetConfig, Variant
from worldstereo.models.block import StereoBlock
from worldstereo.models.source import BackboneConfig
from worldstereo.models.transformer import CameraTransformer, MemoryTransformer, stays_float32

MEASURED = json.loads((ROOT / "benchmarks/results/clip.json").read_text())


@pytest.mark.parametrize(
    ("variant", "kind", "parameters"),
    [
        ("worldstereo-camera", "camera", 17_560_276_544),
        ("worldstereo-memory", "memory", 17_599_628_864),
        ("worldstereo-memory-dmd", "memory", 17_599_628_864),
    ],
)
def test_full_size_parameters_are_counted_exactly(
    variant: Variant, kind: str, parameters: int
) -> None:
    shapes = FULL_SIZE["state_dict"][kind]
    counted = count_parameters(BACKBONE, CONTROLNET, variant)
    assert counted.total == parameters == sum(map(prod, shapes.values()))
    in_blocks = {
        name for name in shapes if name.startswith(("blocks.", "controlnet.controlnet_bl"))
    }
    assert counted.outside == sum(prod(shapes[name]) for name in shapes.keys() - in_blocks)
    first = [name for name in shapes if name.startswith("blocks.0.")]
    assert counted.largest_block == sum(prod(shapes[name]) for name in first)


SMALL = st.integers(1, 4)
BACKBONES = st.builds(
    lambda heads, layers, norm: BackboneConfig.model_validate(
        tiny.BACKBONE
        | {"num_attention_heads": heads, "added_kv_proj_dim": 12 * heads}
        | {"num_layers": layers, "cross_attn_norm": norm}
    ),
    *(SMALL, SMALL, st.booleans()),
)
CONTROLNETS = st.fixed_dictionaries(
    {
        "dim": st.sampled_from([16, 20]),
        "num_layers": SMALL,
        "mask_downsample": st.sampled_from([1, 4]),
        "ref_embedding": st.booleans(),
        "main_camera_embedding": st.booleans(),
    }
).map(lambda changed: ControlNetConfig(**(tiny.CONTROLNET | changed)))


@settings(max_examples=20)
@given(variant=st.sampled_from(VARIANTS), backbone=BACKBONES, controlnet=CONTROLNETS)
def test_any_size_is_counted_as_the_real_classes_have_it(
    variant: Variant, backbone: BackboneConfig, controlnet: ControlNetConfig
) -> None:
    kind = CameraTransformer if variant == "worldstereo-camera" else MemoryTransformer
    with torch.device("meta"):
        parameters = dict(kind(controlnet, **backbone.model_dump()).named_parameters())
    counted = count_parameters(backbone, controlnet, variant)
    assert counted.total == sum(p.numel() for p in parameters.values())
    kept = (p.numel() for name, p in parameters.items() if stays_float32(name))
    assert counted.float32 == sum(kept)


def test_encoders_are_counted_as_the_real_classes_have_them() -> None:
    # The published sizes, as benchmarks/full_size_checkpoint.py has them.
    text = UMT5Config(
        vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64
    )
    image = CLIPVisionConfig(
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=16,
        patch_size=14,
    )
    with torch.device("meta"):
        models = UMT5EncoderModel(text), CLIPVisionModel(image)
    counted = sum(p.numel() for model in models for p in model.parameters())
    assert counted == ENCODER_PARAMETERS


def test_footprint_is_what_was_measured_at_full_size() -> None:
    assert MEASURED["clip"].startswith("21 x 480 x 768, 8 references")
    needed = full_size(DISTILLED, scale_map=((480, 768),))
    assert needed.transformer == MEASURED["transformer_bytes"]
    loaded = needed.transformer + needed.encoders + needed.vae
    assert loaded == MEASURED["allocated_after_load_bytes"]
    assert needed.rank_bytes(layout()) == pytest.approx(MEASURED["peak_bytes"], rel=0.05)


def test_footprint_follows_sizes_references_guidance_and_precision() -> None:
    plain = full_size(DISTILLED)
    half, twice = (full_size(DISTILLED, scale_map=((480, w),)).tokens for w in (384, 768))
    assert twice == 2 * half
    assert full_size("worldstereo-camera").tokens < plain.tokens < full_size(GUIDED).tokens
    # Keys and values: 630 MB of one prompt, 1.05 GB of two; then pixels of 7 maps and a render.
    maps = 21 * 608 * 608 * (7 * (4 + 2) + 3 * 4)
    assert plain.clip - maps == pytest.approx(630e6, rel=0.005)
    assert full_size(GUIDED).clip - maps == pytest.approx(1.05e9, rel=0.005)
    counted = count_parameters(BACKBONE, CONTROLNET, DISTILLED)
    whole = 2 * counted.largest_block + counted.outside + counted.float32
    assert plain.gathered == 2 * whole
    assert full_size(DISTILLED, latent_cond_mode="first_frame_only").coding < plain.coding
    wide = footprint_of(BACKBONE, CONFIG, DISTILLED, max_references=8, precision_bytes=4)
    assert wide.transformer == 4 * 17_599_628_864
    assert wide.encoders == ENCODER_PARAMETERS * 4 == plain.encoders


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are made in it, at the most that live at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}
        self._given: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._given |= {s._cdata for s in storages((args, kwargs)) if s._cdata not in self._sizes}
        result = func(*args, **(kwargs or {}))
        for storage in storages(result):
            key = storage._cdata
            if key not in self._sizes and key not in self._given:
                self._sizes[key] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._freed, key)
        self.peak = max(self.peak, self.now)
        return result

    def _freed(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def storages(tree: Any) -> Iterator[torch.UntypedStorage]:
    return (x.untyped_storage() for x in tree_leaves(tree) if isinstance(x, torch.Tensor))


@pytest.mark.parametrize("references", [0, 8, 20])
def test_activations_are_above_those_of_a_real_block(
    references: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel's own memory is small; on the meta device torch would make the whole matrix.
    monkeypatch.setattr(
        "worldstereo.models.attention.dispatch_attention_fn",
        lambda query, key, value, **_: torch.empty_like(query),
    )
    width, target, beside = BACKBONE.width, 21 * 30 * 48, references * 30 * 48

    def tokens(count: int) -> torch.Tensor:
        return torch.empty(1, count, width, dtype=torch.bfloat16, device="meta")

    def rotary(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        cos, sin = torch.empty(2, 1, count, 1, 128, device="meta")
        return cos, sin

    context = tokens(512), tokens(257), tokens(6)
    with torch.device("meta"):
        sizes = {"dim": width, "ffn_dim": BACKBONE.ffn_dim, "added_kv_proj_dim": width}
        sizes |= {"num_heads": BACKBONE.num_attention_heads, "cross_attn_norm": True}
        block = StereoBlock(keep_reference=True, qk_norm=BACKBONE.qk_norm, **sizes)
    block.to(torch.bfloat16)
    both = target + beside
    with torch.no_grad(), LiveBytes() as live:
        block(tokens(both), *context, rotary(both), targets=target if beside else None)
    config = CONFIG.model_copy(update={"scale_map": ((480, 768),)})
    estimate = footprint_of(
        BACKBONE, config, DISTILLED, max_references=references, precision_bytes=2
    ).tokens
    assert 0.65 * estimate < live.peak < 1.02 * estimate


def test_what_one_rank_holds() -> None:
    needed = Footprint(
        transformer=1000, gathered=100, encoders=70, vae=5, tokens=400, clip=20, coding=60
    )
    assert needed.rank_bytes(layout()) == 1000 + 70 + 5 + 400 + 20
    assert needed.rank_bytes(layout(cfg=2)) == 1000 + 70 + 5 + 400 + 20
    assert needed.rank_bytes(layout(ulysses=4)) == 1000 + 70 + 5 + 100 + 20
    assert needed.rank_bytes(layout(2, 4, fsdp=True)) == 125 + 100 + 70 + 5 + 100 + 20
    assert needed.rank_bytes(layout(ulysses=16)) == 1000 + 70 + 5 + 60  # coding needs more
