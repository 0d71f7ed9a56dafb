"""What a cluster has and what is asked of it, turned into replicas and their ranks.

Owns the memory that one replica needs, the choice of replicas x ranks, and the order of ranks over
nodes. All pure: plain numbers in, a decision and its reason out; no Ray, no torch, no look at the
machine. Leaves to others: which layouts a model can be run in at all
(worldstereo/parallel/layout.py), finding out what there is, and placing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, prod
from typing import Literal, NamedTuple

from worldstereo.config import ControlNetConfig, ModelConfig, Variant, is_distilled, uses_memory
from worldstereo.errors import ParameterError
from worldstereo.models.source import BackboneConfig
from worldstereo.parallel.layout import ParallelLayout, tokens_per_frame

Prefer = Literal["throughput", "latency"]

GIB = 2**30
# Share of a GPU's memory that a replica may fill: CUDA's context, NCCL's buffers and the gaps of
# the allocator take the rest.
USABLE = 0.92

# UMT5-XXL's encoder and CLIP ViT-H/14's vision tower: 22.7 and 2.5 GB in float32.
ENCODER_PARAMETERS = 5_680_910_336 + 630_766_080
# The VAE in float32 and its copy for single frames: what benchmarks/results/full_size.json has
# allocated after loading, less transformer and encoders.
VAE_BYTES = 850_310_528
# The VAE at work, bytes for each pixel of the working size. A start frame encoded as one causal
# video: the peak measured there. Two keyframes at once: counted over the tensors of the decoder.
_CODING_BYTES = {"full_vae": 19_300, "first_frame_only": 4_610}

_FLOAT32 = 4
_TEXT_TOKENS, _IMAGE_TOKENS = 512, 257
_PIXELS_PER_LATENT = 8
_REF_INDEX_ROWS = 21  # of the table that `ref_embedding` adds to a memory variant


class ParameterCount(NamedTuple):
    """Parameters: all, the largest block's, those in no block, those that always stay float32."""

    total: int
    largest_block: int
    outside: int
    float32: int


@dataclass(frozen=True)
class Footprint:
    """Bytes of GPU memory that a replica needs, by how ranks share them.

    Attributes:
        transformer: weights, the ControlNet's among them; with fsdp each rank keeps its share.
        gathered: weights that a rank holds whole beside its share: two blocks (the next one is
            fetched while one computes) and what lies outside the blocks.
        encoders: weights of the text and the image encoder, whole on each rank.
        vae: its weights, whole on each rank.
        tokens: of the denoising, what is split over the ulysses ranks.
        clip: of the denoising, what each rank holds whole.
        coding: the VAE at work, before and after the denoising.
    """

    transformer: int
    gathered: int
    encoders: int
    vae: int
    tokens: int
    clip: int
    coding: int

    def rank_bytes(self, layout: ParallelLayout) -> int:
        """The most that one rank of this layout holds at a time, in bytes."""
        weights = self.transformer
        if layout.fsdp:
            weights = min(weights, ceil(weights / layout.world_size) + self.gathered)
        activations = max(ceil(self.tokens / layout.ulysses) + self.clip, self.coding)
        return weights + self.encoders + self.vae + activations


@dataclass(frozen=True)
class Hardware:
    """The GPUs of each node, and the bytes of memory of the smallest.

    Raises:
        ParameterError: a count is negative, or GPUs have no memory.
    """

    gpus_per_node: tuple[int, ...]
    gpu_bytes: int

    def __post_init__(self) -> None:
        if any(count < 0 for count in self.gpus_per_node):
            raise _refused("a count of GPUs", "gpus_per_node", self.gpus_per_node, "0 or more")
        if self.gpus and self.gpu_bytes < 1:
            raise _refused("memory of a GPU", "gpu_bytes", self.gpu_bytes, "more than 0 bytes")

    @property
    def gpus(self) -> int:
        """GPUs of all nodes."""
        return sum(self.gpus_per_node)

    @property
    def largest_node(self) -> int:
        """GPUs of the node that has most."""
        return max(self.gpus_per_node, default=0)

    @property
    def usable_bytes(self) -> int:
        """What a rank may fill of its GPU."""
        return int(self.gpu_bytes * USABLE)

    def __str__(self) -> str:
        gpus, nodes = _counted(self.gpus, "GPU"), _counted(len(self.gpus_per_node), "node")
        return f"{gpus} of {_gib(self.gpu_bytes)} on {nodes}"


@dataclass(frozen=True)
class Choice:
    """How many replicas, the ranks of each, and why, in one or two sentences."""

    replicas: int
    layout: ParallelLayout
    reason: str


def count_parameters(
    backbone: BackboneConfig, controlnet: ControlNetConfig, variant: Variant
) -> ParameterCount:
    """Count a transformer's parameters from its sizes: exactly those of its state dict."""
    block, control = _backbone_block(backbone), _controlnet_block(controlnet)
    rest = [_outside_blocks(backbone), _outside_controlnet_blocks(backbone, controlnet)]
    if uses_memory(variant):
        rest.append(_Part(_reference_parameters(backbone.width, controlnet), 0))
    parts = [*rest, *[block] * backbone.num_layers, *[control] * controlnet.num_layers]
    return ParameterCount(
        total=sum(part.all for part in parts),
        largest_block=max(block.all, control.all),
        outside=sum(part.all for part in rest),
        float32=sum(part.float32 for part in parts),
    )


def footprint_of(
    backbone: BackboneConfig,
    config: ModelConfig,
    variant: Variant,
    *,
    max_references: int,
    precision_bytes: Literal[2, 4],
    encoder_bytes: int = ENCODER_PARAMETERS * _FLOAT32,
) -> Footprint:
    """What a replica needs for a clip of the largest working size.

    Weights are counted. Activations are an estimate from above: at its peak, where a gated sum
    ends a block, a block holds three float32 tensors and six in working precision, each as large
    as the tokens (N of the target, M of the references) times the width. Beside it a guided step
    keeps the ControlNet's states for its second pass. Each rank holds whole: the
    cross-attention keys and values of all blocks (of two prompts where there is guidance), and
    maps and render at pixel size, in float32 and cast. The VAE's work is measured.

    Args:
        backbone: the base model's sizes.
        config: the variant's, with working sizes and keyframes.
        variant: decides on references and guidance.
        max_references: of one clip; ignored where the variant takes none.
        precision_bytes: of one number of the transformer: 2 for bfloat16, 4 for float32.
        encoder_bytes: text and image encoder together; the published ones in float32.
    """
    controlnet = config.controlnet_cfg
    counted = count_parameters(backbone, controlnet, variant)
    guided = not is_distilled(variant)
    references = max_references if uses_memory(variant) else 0
    frame_tokens = max(tokens_per_frame(config, backbone).values())
    pixels = max(height * width for height, width in config.scale_map)
    target = config.nframe * frame_tokens
    channels = (target + references * frame_tokens) * backbone.width
    tokens = channels * (3 * _FLOAT32 + 6 * precision_bytes)
    if guided:
        tokens += controlnet.num_layers * target * controlnet.dim * precision_bytes
    context = _TEXT_TOKENS * (2 if guided else 1) + _IMAGE_TOKENS
    keys = backbone.num_layers * 2 * context * backbone.width * precision_bytes
    maps = controlnet.add_channels * (_FLOAT32 + precision_bytes) + 3 * _FLOAT32
    beside = 2 * counted.largest_block + counted.outside
    # Numbers that stay float32 are taken to lie in what is gathered: they are few.
    extra = counted.float32 * (_FLOAT32 - precision_bytes)
    return Footprint(
        transformer=counted.total * precision_bytes + extra,
        gathered=beside * precision_bytes + extra,
        encoders=encoder_bytes,
        vae=VAE_BYTES,
        tokens=tokens,
        clip=keys + config.nframe * pixels * maps,
        coding=pixels * _CODING_BYTES[config.latent_cond_mode],
    )


def choose_layout(
    hardware: Hardware,
    footprint: Footprint,
    variant: Variant,
    degrees: Sequence[int],
    *,
    queued: int,
    prefer: Prefer = "throughput",
) -> Choice:
    """Replicas and ranks for the clips that wait.

    Replicas come first: as many as fit, up to one for each clip that waits. GPUs that no clip
    needs go into ranks; where latency is preferred, ranks come first. Ranks stay on one node. Only
    where no node can hold a replica do they span nodes, and then they are as few as fit.

    Args:
        hardware: what there is; without GPUs one rank runs on the CPU, whatever it needs.
        footprint: of one replica.
        variant: guided ones split their two passes (cfg) before their tokens (ulysses).
        degrees: of ulysses that the model allows, see ``ulysses_degrees``.
        queued: clips that wait, at least 1.
        prefer: what matters: clips in an hour, or the time of one.

    Raises:
        ParameterError: no layout fits these GPUs, or an argument is out of its range.
    """
    if queued < 1:
        raise _refused("clips that wait", "queued", queued, "1 or more")
    if 1 not in degrees or min(degrees) < 1:
        raise _refused("degrees of a model", "degrees", list(degrees), "1 and larger numbers")
    if hardware.gpus == 0:
        return Choice(1, ParallelLayout(), "No GPU: one replica of one rank on the CPU.")
    layouts = _layouts(variant, degrees, hardware.gpus)
    fitting = [item for item in layouts if footprint.rank_bytes(item) <= hardware.usable_bytes]
    if not fitting:
        raise _does_not_fit(hardware, footprint, layouts)
    local = [item for item in fitting if fits_one_node(item, hardware)]
    candidates = local or fitting[:1]  # those with fewest ranks come first
    wanted = 1 if prefer == "latency" else min(_places(candidates[0], hardware), queued)
    roomy = [item for item in candidates if _places(item, hardware) >= wanted]
    layout = max(roomy, key=lambda item: item.world_size)  # the first of those with most ranks
    choice = Choice(min(_places(layout, hardware), queued), layout, reason="")
    return replace(choice, reason=_reason(hardware, footprint, choice, queued, prefer))


def fits_one_node(layout: ParallelLayout, hardware: Hardware) -> bool:
    """Whether one node holds a whole replica: STRICT_PACK, else PACK. Any holds a single rank."""
    return layout.world_size <= max(hardware.largest_node, 1)


def order_ranks(bundle_nodes: Sequence[str], first: str) -> list[int]:
    """Which worker bundle each rank gets, ranks of a node in a row.

    Args:
        bundle_nodes: node of each worker bundle, in the order of a placement group's bundles 1, 2,
            ...: bundle 0 is the coordinator's and not among them.
        first: the coordinator's node, whose workers come first where it has any. Then nodes with
            more bundles come before those with fewer, and otherwise the node met first.

    Returns:
        For ranks 0, 1, ...: an index of ``bundle_nodes``, one less than the bundle's in the group.
    """
    bundles = Counter(bundle_nodes)
    met = {node: position for position, node in enumerate(bundles)}

    def key(index: int) -> tuple[bool, int, int]:
        node = bundle_nodes[index]
        return node != first, -bundles[node], met[node]

    return sorted(range(len(bundle_nodes)), key=key)


def _layouts(variant: Variant, degrees: Sequence[int], gpus: int) -> list[ParallelLayout]:
    """Layouts of at most so many ranks: fewest ranks first, then whole weights, then cfg."""
    passes: tuple[Literal[1, 2], ...] = (1,) if is_distilled(variant) else (2, 1)
    found = [
        ParallelLayout(cfg=cfg, ulysses=ulysses, fsdp=fsdp)
        for fsdp in (False, True)
        for cfg in passes
        for ulysses in sorted(set(degrees))
        if cfg * ulysses <= gpus and (cfg * ulysses > 1 or not fsdp)
    ]
    return sorted(found, key=lambda layout: layout.world_size)


def _places(layout: ParallelLayout, hardware: Hardware) -> int:
    """Replicas of this layout that the GPUs suffice for."""
    if not fits_one_node(layout, hardware):
        return hardware.gpus // layout.world_size
    return sum(count // layout.world_size for count in hardware.gpus_per_node)


def _reason(
    hardware: Hardware, footprint: Footprint, choice: Choice, queued: int, prefer: Prefer
) -> str:
    replicas, layout = choice.replicas, choice.layout
    alone = footprint.rank_bytes(ParallelLayout())
    need = f"one replica needs {_gib(alone)} and fits one GPU"
    if alone > hardware.usable_bytes:
        share = _gib(footprint.rank_bytes(layout))
        need = f"one replica needs {_gib(alone)}, more than one GPU can give: {share} a rank"
    shape = f" ({layout})" if layout.world_size > 1 else ""
    what = f"{_counted(replicas, 'replica')} of {_counted(layout.world_size, 'rank')}{shape}"
    if not fits_one_node(layout, hardware):
        why = "as few ranks as hold one, because no node has enough GPUs"
    elif prefer == "latency":
        why = "ranks come first, since the time of one clip matters"
    elif replicas < queued:
        why = "a second replica doubles the clips, a second rank does not double a clip's speed"
    else:
        why = "each clip has its own, with all ranks that the GPUs and the model allow"
    left = hardware.gpus - replicas * layout.world_size
    unused = f"; {_counted(left, 'GPU')} left over" if left else ""
    return f"{hardware}; {need}. {what} for {_counted(queued, 'clip')}: {why}{unused}."


def _does_not_fit(
    hardware: Hardware, footprint: Footprint, layouts: Sequence[ParallelLayout]
) -> ParameterError:
    best = min(layouts, key=footprint.rank_bytes)
    least = footprint.rank_bytes(best)
    return ParameterError(
        f"a replica needs {_gib(least)} on each GPU, even as {best}",
        where="cluster",
        got=f"{hardware}, of which {_gib(hardware.usable_bytes)} each can be filled",
        allowed=f"GPUs of {_gib(ceil(least / USABLE))} or more",
        fix=f"hold the encoders ({_gib(footprint.encoders)} a GPU) in bfloat16, half of float32; "
        "or use larger GPUs, or more of them",
    )


class _Part(NamedTuple):
    """Parameters of a part of the transformer: all, and those that stay float32."""

    all: int
    float32: int


def _backbone_block(config: BackboneConfig) -> _Part:
    width = config.width
    attention = 4 * _linear(width, width) + 2 * width  # q, k, v, out; norms of q and k
    image = 2 * _linear(config.added_kv_proj_dim, width) + width  # k, v; norm of k
    feed_forward = _linear(width, config.ffn_dim) + _linear(config.ffn_dim, width)
    float32 = 6 * width + (2 * width if config.cross_attn_norm else 0)
    return _Part(2 * attention + image + feed_forward + float32, float32)


def _controlnet_block(config: ControlNetConfig) -> _Part:
    dim = config.dim
    attention = 4 * _linear(dim, dim) + 2 * dim
    feed_forward = _linear(dim, config.ffn_dim) + _linear(config.ffn_dim, dim)
    modulation, norms = 2 * _linear(config.time_embed_dim, 3 * dim), 2 * 2 * dim
    return _Part(attention + feed_forward + modulation + norms, norms)


def _outside_blocks(config: BackboneConfig) -> _Part:
    width, image, patch = config.width, config.image_dim, prod(config.patch_size)
    ends = _linear(config.in_channels * patch, width) + _linear(width, config.out_channels * patch)
    time, time_proj = _linear(config.freq_dim, width) + _linear(width, width), 6 * width
    text = _linear(config.text_dim, width) + _linear(width, width)
    image_embedder = _linear(image, image) + _linear(image, width)
    float32 = time + 2 * image + 2 * width + 2 * width  # norms of the image, output table
    return _Part(ends + _linear(width, time_proj) + text + image_embedder + float32, float32)


def _outside_controlnet_blocks(backbone: BackboneConfig, config: ControlNetConfig) -> _Part:
    patch, inner, norm = prod(backbone.patch_size), config.conv_out_dim, 2 * config.mid_channels
    pixels = config.mask_downsample * _PIXELS_PER_LATENT**2
    latents = _linear(backbone.in_channels * patch, inner)
    maps = _linear(config.add_channels * pixels, config.mid_channels)
    maps += norm + _linear(config.mid_channels * patch, inner)
    entry = 0 if inner == config.dim else _linear(inner, config.dim)
    exits = config.num_layers * _linear(config.dim, backbone.width)
    return _Part(latents + maps + entry + exits, norm)


def _reference_parameters(width: int, config: ControlNetConfig) -> int:
    rows = _linear(config.camera_embedding_dim, width // 2)
    rows += _linear(width // 2, width) + _linear(width, width)
    table = _REF_INDEX_ROWS * width if config.ref_embedding else 0
    return table + (rows if config.main_camera_embedding else 0)


def _linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer, or of a convolution, with bias."""
    return (inputs + 1) * outputs


def _refused(what: str, where: str, got: object, allowed: str) -> ParameterError:
    return ParameterError(f"{what} out of range", where=where, got=str(got), allowed=allowed)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
