"""Replicas and ranks: known answers, laws against a search of everything, memory as measured."""

import json
import weakref
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, product
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import CLIPVisionConfig, CLIPVisionModel, UMT5Config, UMT5EncoderModel

from cluster.topology import (
    ENCODER_PARAMETERS,
    GIB,
    USABLE,
    Choice,
    Footprint,
    Hardware,
    Prefer,
    choose_layout,
    count_parameters,
    fits_one_node,
    footprint_of,
    order_ranks,
)
from tests.models import tiny
from worldstereo.config import VARIANTS, ControlNetConfig, ModelConfig, Variant, is_distilled
from worldstereo.errors import ParameterError
from worldstereo.models.block import StereoBlock
from worldstereo.models.source import BackboneConfig
from worldstereo.models.transformer import CameraTransformer, MemoryTransformer, stays_float32
from worldstereo.parallel.layout import ParallelLayout, check_layout, ulysses_degrees

ROOT = Path(__file__).parents[2]
FULL_SIZE = json.loads((ROOT / "tests/golden/transformer/full_size_keys.json").read_text())
MEASURED = json.loads((ROOT / "benchmarks/results/full_size.json").read_text())
BACKBONE = BackboneConfig(**FULL_SIZE["backbone"])
CONTROLNET = ControlNetConfig(**FULL_SIZE["controlnet_cfg"])
CONFIG = ModelConfig(
    base_model="base", controlnet_cfg=CONTROLNET, nframe=21, latent_cond_mode="full_vae"
)
GUIDED: Variant = "worldstereo-memory"
DISTILLED: Variant = "worldstereo-memory-dmd"
# About what torch reports of an A100 of 40 GB, an RTX A6000, an H100 and an H200.
A100, A6000, H100, H200 = (int(size * GIB) for size in (39.4, 47.4, 79.1, 139.8))


def full_size(variant: Variant, *, encoders: int = 4, **config: Any) -> Footprint:
    return footprint_of(
        BACKBONE,
        CONFIG.model_copy(update=config),
        variant,
        max_references=8,
        precision_bytes=2,
        encoder_bytes=ENCODER_PARAMETERS * encoders,
    )


def light(variant: Variant) -> Footprint:
    """With encoders in bfloat16 and the condition mode that takes less memory."""
    return full_size(variant, encoders=2, latent_cond_mode="first_frame_only")


def chosen(
    nodes: Sequence[int],
    gpu_bytes: int,
    queued: int,
    variant: Variant = DISTILLED,
    prefer: Prefer = "throughput",
    degrees: Sequence[int] = (1, 2, 4),
    footprint: Footprint | None = None,
) -> Choice:
    hardware = Hardware(tuple(nodes), gpu_bytes)
    needed = footprint or full_size(variant)
    return choose_layout(hardware, needed, variant, degrees, queued=queued, prefer=prefer)


def layout(cfg: int = 1, ulysses: int = 1, *, fsdp: bool = False) -> ParallelLayout:
    return ParallelLayout.model_validate({"cfg": cfg, "ulysses": ulysses, "fsdp": fsdp})


# What a replica needs


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

    with torch.device("meta"):
        sizes = {"dim": width, "ffn_dim": BACKBONE.ffn_dim, "added_kv_proj_dim": width}
        sizes |= {"num_heads": BACKBONE.num_attention_heads, "cross_attn_norm": True}
        block = StereoBlock(keep_reference=True, qk_norm=BACKBONE.qk_norm, **sizes)
    block.to(torch.bfloat16)
    context = tokens(512), tokens(257), tokens(6)
    at, beside_at = rotary(target), rotary(beside) if beside else None
    with torch.no_grad(), LiveBytes() as live:
        block(tokens(target), *context, at, tokens(beside) if beside else None, beside_at)
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


# Known answers


Asked = tuple[tuple[int, ...], int, int, Variant, Prefer]


@pytest.mark.parametrize(
    ("asked", "replicas", "ranks"),
    [
        # Replicas come first.
        (((8,), H200, 33, DISTILLED, "throughput"), 8, layout()),
        (((8,), H200, 33, GUIDED, "throughput"), 8, layout()),
        (((8,), H100, 33, GUIDED, "throughput"), 8, layout()),
        (((3,), H200, 33, GUIDED, "throughput"), 3, layout()),
        (((1, 1), H200, 33, GUIDED, "throughput"), 2, layout()),
        # More GPUs than clips: cfg before ulysses, and no more ranks than the model allows.
        (((8,), H200, 1, GUIDED, "throughput"), 1, layout(2, 4)),
        (((8,), H200, 1, DISTILLED, "throughput"), 1, layout(1, 4)),
        (((2,), H200, 1, GUIDED, "throughput"), 1, layout(2, 1)),
        (((3,), H200, 1, GUIDED, "throughput"), 1, layout(2, 1)),
        (((3,), H200, 1, DISTILLED, "throughput"), 1, layout(1, 2)),
        (((8,), H200, 4, GUIDED, "throughput"), 4, layout(2, 1)),
        (((8,), H200, 3, DISTILLED, "throughput"), 3, layout(1, 2)),
        (((8,), H200, 5, DISTILLED, "throughput"), 5, layout()),
        # Latency first, and replicas of what is left.
        (((8,), H200, 33, GUIDED, "latency"), 1, layout(2, 4)),
        (((8,), H200, 33, DISTILLED, "latency"), 2, layout(1, 4)),
        (((1, 1), H200, 33, GUIDED, "latency"), 2, layout()),
        (((4, 2), H200, 33, GUIDED, "latency"), 1, layout(2, 2)),
        (((1,), H200, 1, GUIDED, "latency"), 1, layout()),
        # Never over nodes where a GPU is enough.
        (((2, 2), H200, 1, GUIDED, "throughput"), 1, layout(2, 1)),
        (((4, 4), H200, 2, GUIDED, "throughput"), 2, layout(2, 2)),
        # No GPU.
        (((), 0, 33, GUIDED, "throughput"), 1, layout()),
        (((0, 0), 0, 1, DISTILLED, "latency"), 1, layout()),
    ],
)
def test_known_choices_at_full_size(asked: Asked, replicas: int, ranks: ParallelLayout) -> None:
    choice = chosen(*asked)
    assert (choice.replicas, choice.layout) == (replicas, ranks), choice.reason


def test_a_model_that_allows_eight_ranks_gets_them() -> None:
    choice = chosen((8,), H200, 1, DISTILLED, degrees=(1, 2, 4, 8))
    assert (choice.replicas, choice.layout) == (1, layout(1, 8))


@pytest.mark.parametrize(
    ("asked", "replicas", "ranks", "one_node"),
    [
        (((2,), A100, 33, DISTILLED), 1, layout(1, 2, fsdp=True), True),
        (((3, 3), A100, 33, DISTILLED), 2, layout(1, 2, fsdp=True), True),
        (((2,), A6000, 33, GUIDED), 1, layout(2, 1, fsdp=True), True),
        (((8,), A6000, 33, GUIDED), 4, layout(2, 1, fsdp=True), True),
        (((8,), A6000, 1, GUIDED), 1, layout(2, 4, fsdp=True), True),
        # Weights are not all: two whole passes are too much for 40 GB, two halves are not.
        (((2,), A100, 33, GUIDED), 1, layout(1, 2, fsdp=True), True),
        # A node with one GPU has too few: two nodes share.
        (((1, 1, 1), A100, 33, DISTILLED), 1, layout(1, 2, fsdp=True), False),
        (((1, 1, 1, 1), A6000, 33, GUIDED), 2, layout(2, 1, fsdp=True), False),
        # As few ranks as fit, even for a single clip: nodes are slow to talk to each other.
        (((1, 1, 1, 1), A6000, 1, GUIDED), 1, layout(2, 1, fsdp=True), False),
    ],
)
def test_weights_that_do_not_fit_one_gpu_are_shared(
    asked: tuple[tuple[int, ...], int, int, Variant],
    replicas: int,
    ranks: ParallelLayout,
    one_node: bool,
) -> None:
    choice = chosen(*asked, footprint=light(asked[-1]))
    assert (choice.replicas, choice.layout) == (replicas, ranks), choice.reason
    assert fits_one_node(choice.layout, Hardware(*asked[:2])) is one_node


def test_two_nodes_hold_what_one_cannot() -> None:
    # Four ranks of 48 GB, encoders in float32; a node has two.
    choice = chosen((2, 2), A6000, 33, GUIDED)
    assert (choice.replicas, choice.layout) == (1, layout(2, 2, fsdp=True))
    assert "no node has enough GPUs" in choice.reason
    assert not fits_one_node(choice.layout, Hardware((2, 2), A6000))


@pytest.mark.parametrize(
    ("nodes", "gpu_bytes", "encoders"),
    [((2, 2), 24 * GIB, 4), ((2, 2), 24 * GIB, 2), ((2,), A100, 4)],
)
def test_what_fits_nowhere_is_refused(
    nodes: tuple[int, ...], gpu_bytes: int, encoders: int
) -> None:
    needed = full_size(DISTILLED, encoders=encoders)
    with pytest.raises(ParameterError) as caught:
        chosen(nodes, gpu_bytes, 33, footprint=needed)
    error = caught.value
    assert "fsdp" in error.what
    assert error.got is not None
    assert error.got.startswith(f"{sum(nodes)} GPUs of ")
    assert error.fix is not None
    assert f"({needed.encoders / GIB:.1f} GiB a GPU) in bfloat16" in error.fix
    assert error.allowed is not None
    least = float(error.allowed.removeprefix("GPUs of ").partition(" ")[0])
    # What the message asks for is enough, and a tenth of a GiB less than that is not.
    assert chosen(nodes, int((least + 0.1) * GIB), 33, footprint=needed).layout.fsdp
    with pytest.raises(ParameterError):
        chosen(nodes, int((least - 0.1) * GIB), 33, footprint=needed)


def test_reasons_say_the_numbers() -> None:
    assert chosen((8,), H200, 33).reason == (
        "8 GPUs of 139.8 GiB on 1 node; one replica needs 63.8 GiB and fits one GPU. "
        "8 replicas of 1 rank for 33 clips: a second replica doubles the clips, "
        "a second rank does not double a clip's speed."
    )
    assert chosen((), 0, 1).reason == "No GPU: one replica of one rank on the CPU."
    left = chosen((3,), H200, 1, GUIDED).reason
    assert left.endswith("1 GPU left over.")
    assert "1 replica of 2 ranks (cfg 2 x ulysses 1) for 1 clip" in left
    assert "left over" not in chosen((8,), H200, 1, GUIDED).reason
    assert "the time of one clip matters" in chosen((8,), H200, 1, prefer="latency").reason
    needed = light(DISTILLED)
    assert "more than one GPU can give: " in chosen((2,), A100, 1, footprint=needed).reason


def test_choices_pass_the_check_of_the_model() -> None:
    assert ulysses_degrees(CONFIG, BACKBONE) == [1, 2, 4]
    for variant, queued in product((GUIDED, DISTILLED), (1, 3, 33)):
        choice = chosen((8,), H200, queued, variant, degrees=ulysses_degrees(CONFIG, BACKBONE))
        check_layout(choice.layout, variant, CONFIG, BACKBONE)


@pytest.mark.parametrize(
    ("where", "refused"),
    [
        ("queued", lambda: chosen((1,), H200, 0)),
        ("degrees", lambda: chosen((1,), H200, 1, degrees=())),
        ("degrees", lambda: chosen((2,), H200, 1, degrees=(2, 4))),
        ("degrees", lambda: chosen((2,), H200, 1, degrees=(0, 1))),
        ("gpus_per_node", lambda: Hardware((2, -1), H200)),
        ("gpu_bytes", lambda: Hardware((2,), 0)),
    ],
)
def test_arguments_out_of_range(where: str, refused: Callable[[], object]) -> None:
    with pytest.raises(ParameterError) as caught:
        refused()
    assert caught.value.where == where
    assert caught.value.got is not None
    assert caught.value.allowed is not None


# Laws, against a search of everything

NODES = st.lists(st.integers(0, 8), max_size=4).map(tuple)
DEGREES = st.sets(st.integers(2, 8)).map(lambda larger: [1, *sorted(larger)])
GIBS = st.integers(0, 48).map(lambda count: count * GIB)
FOOTPRINTS = st.builds(
    Footprint,
    transformer=GIBS,
    gathered=st.integers(0, 4).map(lambda count: count * GIB),
    encoders=GIBS,
    vae=st.just(GIB),
    tokens=GIBS,
    clip=st.just(GIB),
    coding=st.integers(0, 12).map(lambda count: count * GIB),
)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "nodes": draw(NODES),
        "gpu_bytes": draw(st.integers(16, 144)) * GIB,
        "queued": draw(st.integers(1, 70)),
        "variant": draw(st.sampled_from(VARIANTS)),
        "prefer": draw(st.sampled_from(["throughput", "latency"])),
        "degrees": draw(DEGREES),
        "footprint": draw(FOOTPRINTS),
    }


def everything_that_fits(asked: dict[str, Any]) -> list[ParallelLayout]:
    """All layouts of at most all GPUs that a rank's memory suffices for."""
    passes = (1,) if is_distilled(asked["variant"]) else (1, 2)
    every = [
        layout(cfg, ulysses, fsdp=fsdp)
        for cfg, ulysses, fsdp in product(passes, asked["degrees"], (False, True))
        if cfg * ulysses <= sum(asked["nodes"]) and not (fsdp and cfg * ulysses == 1)
    ]
    needs = asked["footprint"].rank_bytes
    return [item for item in every if needs(item) <= asked["gpu_bytes"] * USABLE]


@settings(max_examples=400)
@given(asked=questions())
def test_laws_of_a_choice(asked: dict[str, Any]) -> None:
    nodes, queued = asked["nodes"], asked["queued"]
    fitting = everything_that_fits(asked)
    if sum(nodes) and not fitting:
        with pytest.raises(ParameterError, match="replica needs"):
            chosen(**asked)
        return
    choice = chosen(**asked)
    ranks = choice.layout.world_size
    if not sum(nodes):
        assert (choice.replicas, choice.layout) == (1, layout())
        return
    assert choice.layout in fitting
    assert 1 <= choice.replicas <= queued
    assert choice.replicas * ranks <= sum(nodes)
    local = [item for item in fitting if item.world_size <= max(nodes)]
    if not local:
        assert not fits_one_node(choice.layout, Hardware(nodes, asked["gpu_bytes"]))
        assert ranks == min(item.world_size for item in fitting)
        assert choice.replicas == min(sum(nodes) // ranks, queued)
        return
    assert fits_one_node(choice.layout, Hardware(nodes, asked["gpu_bytes"]))
    room = {item: sum(count // item.world_size for count in nodes) for item in local}
    assert choice.replicas == min(room[choice.layout], queued)
    if asked["prefer"] == "latency":
        assert ranks == max(item.world_size for item in local)
    else:
        assert choice.replicas == min(max(room.values()), queued)
        more = [item for item in local if item.world_size > ranks]
        assert all(room[item] < choice.replicas for item in more)
    alike = [item for item in local if item.world_size == ranks]
    assert choice.layout.fsdp == all(item.fsdp for item in alike)
    same = [item for item in alike if item.fsdp == choice.layout.fsdp]
    assert choice.layout.cfg == max(item.cfg for item in same)
    left = sum(nodes) - choice.replicas * ranks
    assert ("left over" in choice.reason) == (left > 0)


@pytest.mark.parametrize(
    ("bundles", "first", "order"),
    [
        ([], "a", []),
        (["a", "a", "a"], "a", [0, 1, 2]),
        (["a", "b", "a", "b"], "b", [1, 3, 0, 2]),
        (["a", "b", "a", "b"], "head", [0, 2, 1, 3]),  # a tie: first met
        (["a", "b", "b"], "head", [1, 2, 0]),  # more bundles first
        (["a", "b", "b"], "a", [0, 1, 2]),  # but the coordinator's node before all
        (["c", "a", "b", "a", "b", "b"], "c", [0, 2, 4, 5, 1, 3]),
    ],
)
def test_known_orders_of_ranks(bundles: list[str], first: str, order: list[int]) -> None:
    assert order_ranks(bundles, first) == order


@given(bundles=st.lists(st.sampled_from("abcd"), max_size=12), first=st.sampled_from("abcde"))
def test_laws_of_the_order_of_ranks(bundles: list[str], first: str) -> None:
    order = order_ranks(bundles, first)
    assert sorted(order) == list(range(len(bundles)))
    runs = [(node, list(run)) for node, run in groupby(order, key=lambda index: bundles[index])]
    nodes = [node for node, _ in runs]
    assert len(nodes) == len(set(nodes))
    assert all(run == sorted(run) for _, run in runs)
    if first in bundles:
        assert nodes[0] == first
    others = [(-bundles.count(node), bundles.index(node)) for node in nodes if node != first]
    assert others == sorted(others)
