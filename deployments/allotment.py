"""What each variant's generators get of a cluster's GPUs: replicas, the ranks of each, and why.

What the settings say goes first; what they leave open is chosen from the GPUs that there are, which
the variants share. A layout that a model cannot be run in is refused here, before anything starts.
Leaves to others: the choice itself (cluster/topology.py), finding GPUs (cluster/hardware.py).
Imports neither Ray nor torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from cluster.footprint import ENCODER_PARAMETERS, footprint_of
from cluster.hardware import Gpus
from cluster.topology import (
    GIB,
    Choice,
    Hardware,
    choose_layout,
    described,
    divided,
    fits_one_node,
    places,
)
from configs.settings import AppArgs, ModelSettings
from deployments.weights import backbone_config_of, model_config_of
from worldstereo.config import SceneParameters, Variant
from worldstereo.errors import ParameterError
from worldstereo.models.source import BUNDLED
from worldstereo.parallel.layout import ParallelLayout, check_layout, ulysses_degrees


@dataclass(frozen=True)
class Allotment:
    """What the generators of one variant get.

    Attributes:
        replicas: their number; where it follows the load, the most.
        layout: the ranks of each.
        one_node: whether all ranks of a replica must be on one node.
        reason: why, in one or two sentences.
    """

    replicas: int
    layout: ParallelLayout
    one_node: bool
    reason: str


def allot(args: AppArgs, model: ModelSettings, gpus: Gpus) -> dict[Variant, Allotment]:
    """What each variant gets.

    Args:
        args: of the application.
        model: the one that it serves.
        gpus: those that there are; not asked for a model on the CPU.

    Raises:
        ParameterError: no layout fits, there are fewer GPUs than variants, or a layout that is set
            is none that the model can be run in.
        CheckpointError: the sizes of a variant or of its base model cannot be found.
    """
    if model.device == "cpu":
        found = dict.fromkeys(args.variants, _on_cpu(args, model))
    else:
        found = _on_gpus(args, model, gpus)
    for variant, allotment in found.items():
        if allotment.layout != ParallelLayout():
            local = args.local_files_only
            config = model_config_of(model, variant, local_files_only=local)
            backbone = backbone_config_of(model, variant, local_files_only=local)
            check_layout(allotment.layout, variant, config, backbone)
    return found


def gpus_beside(args: AppArgs) -> float:
    """GPUs that depth and the outputs that take one may have at once."""
    depth, reconstructor = args.depth, args.reconstructor
    return (depth.autoscaling.max_replicas * depth.num_gpus if depth else 0.0) + (
        reconstructor.num_gpus if reconstructor else 0.0
    )


def _on_cpu(args: AppArgs, model: ModelSettings) -> Allotment:
    replicas, layout = args.generator.most_replicas or 1, model.parallel or ParallelLayout()
    return Allotment(replicas, layout, True, f"On the CPU: {described(replicas, layout)}.")


def _on_gpus(args: AppArgs, model: ModelSettings, gpus: Gpus) -> dict[Variant, Allotment]:
    nodes = gpus.per_node()
    beside = math.ceil(gpus_beside(args)) if model.worker_num_gpus == 1 else 0
    found = {}
    shares = divided(nodes, len(args.variants), taken=beside)
    for variant, share in zip(args.variants, shares, strict=True):
        choice = _as_set(args, model, share, any(nodes))
        if choice is None and not share:
            raise _too_few(args, sum(nodes), beside)
        if choice is None:
            choice = _chosen(args, model, variant, Hardware(share, _bytes_each(model, gpus)))
        # Where no node has a GPU yet, those that come are hoped to have enough.
        one_node = not any(nodes) or fits_one_node(choice.layout, nodes)
        found[variant] = Allotment(choice.replicas, choice.layout, one_node, choice.reason)
    return found


def _as_set(
    args: AppArgs, model: ModelSettings, share: tuple[int, ...], any_gpu: bool
) -> Choice | None:
    """What needs no choosing; None where there is one."""
    if model.parallel is not None:
        layout, why = model.parallel, "as set"
    elif model.worker_num_gpus != 1:
        layout = ParallelLayout()
        why = f"worker_num_gpus is {model.worker_num_gpus:g}, and ranks take a whole GPU each"
    elif not any_gpu:
        layout, why = ParallelLayout(), "no GPU is there yet to choose by"
    else:
        return None
    room = places(layout, share) if model.worker_num_gpus == 1 else 1
    replicas = args.generator.most_replicas or max(room, 1)
    return Choice(replicas, layout, f"{described(replicas, layout)}: {why}.")


def _chosen(args: AppArgs, model: ModelSettings, variant: Variant, hardware: Hardware) -> Choice:
    local, asked = args.local_files_only, args.generator.most_replicas
    config = model_config_of(model, variant, local_files_only=local)
    backbone = backbone_config_of(model, variant, local_files_only=local)
    footprint = footprint_of(
        backbone,
        config,
        variant,
        max_references=SceneParameters().max_reference,
        precision_bytes=4 if model.precision == "float32" else 2,
        encoder_bytes=_encoder_bytes(model),
    )
    if model.precision == "fp8":
        # Its weights are not sharded: each rank would hold all of them.
        footprint = replace(footprint, gathered=footprint.transformer)
    choice = choose_layout(
        hardware,
        footprint,
        variant,
        ulysses_degrees(config, backbone),
        queued=asked or hardware.gpus,
    )
    if asked is None or asked == choice.replicas:
        return choice
    return replace(choice, replicas=asked, reason=f"{choice.reason} Asked for are {asked}.")


def _encoder_bytes(model: ModelSettings) -> int:
    if model.source in BUNDLED:
        return 0  # next to nothing
    return ENCODER_PARAMETERS * (4 if model.encoder_precision == "float32" else 2)


def _bytes_each(model: ModelSettings, gpus: Gpus) -> int:
    if model.gpu_memory_gib is not None:
        return int(model.gpu_memory_gib * GIB)
    return gpus.bytes_each()


def _too_few(args: AppArgs, gpus: int, beside: int) -> ParameterError:
    used = f", {beside} of them for depth and reconstructor" if beside else ""
    return ParameterError(
        "there are fewer GPUs than variants",
        where="variants",
        got=f"{', '.join(args.variants)} on {gpus} GPU{'' if gpus == 1 else 's'}{used}",
        fix="serve fewer variants; or set parallel in the model's configuration, where GPUs are "
        "still to come",
    )
