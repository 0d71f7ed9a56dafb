"""What a cluster has and what is asked of it, turned into replicas and their ranks.

Owns the choice of replicas x ranks, the division of GPUs, and the order of ranks over nodes. All
pure: plain numbers in, a decision and its reason out; no Ray, no torch, no look at the machine.
Leaves to others: what a replica needs (footprint.py), which layouts a model can be run in at all
(worldstereo/parallel/layout.py), finding out what there is (hardware.py), and placing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Literal

from cluster.footprint import Footprint
from worldstereo.config import Variant, is_distilled
from worldstereo.errors import ParameterError
from worldstereo.parallel.layout import ParallelLayout

Prefer = Literal["throughput", "latency"]

GIB = 2**30
# Share of a GPU's memory that a replica may fill: CUDA's context, NCCL's buffers and the gaps of
# the allocator take the rest.
USABLE = 0.92


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
    nodes = hardware.gpus_per_node
    layouts = _layouts(variant, degrees, hardware.gpus)
    fitting = [item for item in layouts if footprint.rank_bytes(item) <= hardware.usable_bytes]
    if not fitting:
        raise _does_not_fit(hardware, footprint, layouts)
    local = [item for item in fitting if fits_one_node(item, nodes)]
    candidates = local or fitting[:1]  # those with fewest ranks come first
    wanted = 1 if prefer == "latency" else min(places(candidates[0], nodes), queued)
    roomy = [item for item in candidates if places(item, nodes) >= wanted]
    layout = max(roomy, key=lambda item: item.world_size)  # the first of those with most ranks
    choice = Choice(min(places(layout, nodes), queued), layout, reason="")
    return replace(choice, reason=_reason(hardware, footprint, choice, queued, prefer))


def fits_one_node(layout: ParallelLayout, gpus_per_node: Sequence[int]) -> bool:
    """Whether one node holds a whole replica: STRICT_PACK, else PACK. Any holds a single rank."""
    return layout.world_size <= max([*gpus_per_node, 1])


def places(layout: ParallelLayout, gpus_per_node: Sequence[int]) -> int:
    """Replicas of this layout that the GPUs suffice for, each on one node where one is enough."""
    if not fits_one_node(layout, gpus_per_node):
        return sum(gpus_per_node) // layout.world_size
    return sum(count // layout.world_size for count in gpus_per_node)


def described(replicas: int, layout: ParallelLayout) -> str:
    """Replicas and ranks in words."""
    shape = f" ({layout})" if layout.world_size > 1 or layout.fsdp else ""
    return f"{_counted(replicas, 'replica')} of {_counted(layout.world_size, 'rank')}{shape}"


def divided(gpus_per_node: Sequence[int], parts: int, *, taken: int = 0) -> list[tuple[int, ...]]:
    """Whole GPUs, dealt as evenly as can be.

    Args:
        gpus_per_node: what there is.
        parts: who share it.
        taken: GPUs that others have, on the nodes with fewest.

    Returns:
        For each part: GPUs of each node that it has any of, those of a node in a row.
    """
    left = sorted(gpus_per_node, reverse=True)
    for node in reversed(range(len(left))):
        used = min(left[node], taken)
        left[node], taken = left[node] - used, taken - used
    each, more = divmod(sum(left), parts)
    dealt = []
    for part in range(parts):
        wanted, share = each + (part < more), []
        for node, count in enumerate(left):
            share.append(min(count, wanted))
            left[node], wanted = count - share[-1], wanted - share[-1]
        dealt.append(tuple(count for count in share if count))
    return dealt


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


def _reason(
    hardware: Hardware, footprint: Footprint, choice: Choice, queued: int, prefer: Prefer
) -> str:
    replicas, layout = choice.replicas, choice.layout
    alone = footprint.rank_bytes(ParallelLayout())
    need = f"one replica needs {_gib(alone)} and fits one GPU"
    if alone > hardware.usable_bytes:
        share = _gib(footprint.rank_bytes(layout))
        need = f"one replica needs {_gib(alone)}, more than one GPU can give: {share} a rank"
    what = described(replicas, layout)
    if not fits_one_node(layout, hardware.gpus_per_node):
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


def _refused(what: str, where: str, got: object, allowed: str) -> ParameterError:
    return ParameterError(f"{what} out of range", where=where, got=str(got), allowed=allowed)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
