"""How a checkpoint becomes a model: a variant's weights laid over the base transformer's.

Owns: building the variant's class, checking names and shapes of both files before any tensor is
read, and streaming tensors one by one to the device in the dtype that each keeps, of sharded
weights this rank's part alone. Leaves to others: where files lie (source.py) and how a model is
split (parallelize.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from worldstereo.config import (
    ComputeOptions,
    ControlNetConfig,
    ModelConfig,
    Variant,
    uses_memory,
)
from worldstereo.errors import CheckpointError
from worldstereo.models.attention import RotaryPositions
from worldstereo.models.float8 import Float8Linear
from worldstereo.models.parallelize import parallelize_transformer
from worldstereo.models.source import (
    BASE_WEIGHTS,
    UNUSED_KEY,
    VARIANT_WEIGHTS,
    BackboneConfig,
    checked_config,
    read_backbone_config,
    readable_weights,
    shortened,
    weight_files,
)
from worldstereo.models.transformer import (
    CameraTransformer,
    MemoryTransformer,
    WorldStereoTransformer,
)
from worldstereo.parallel.layout import check_layout, shares_control
from worldstereo.parallel.mesh import ParallelMesh

# Parameters that the base model does not have; a variant's file must hold them.
_VARIANT_ONLY = ("controlnet.", "camera_embedding.", "ref_index_embedding.")


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor lies and how large it is; nothing of it is read yet."""

    file: Path
    shape: tuple[int, ...]


def build_transformer(
    variant: Variant, base_config: Mapping[str, Any] | BackboneConfig, controlnet: ControlNetConfig
) -> WorldStereoTransformer:
    """The variant's transformer with untrained weights, on the current default device.

    Args:
        variant: decides on the class.
        base_config: arguments of the backbone, as in the base model's
            ``transformer/config.json``.
        controlnet: ``controlnet_cfg`` of the variant.

    Returns:
        The model in float32. Under ``torch.device("meta")`` nothing is allocated.

    Raises:
        CheckpointError: a field is missing or out of range, or the two do not fit together.
    """
    backbone = checked_config(base_config, "transformer/config.json", BackboneConfig)
    _check_fit(backbone, controlnet)
    cls = MemoryTransformer if uses_memory(variant) else CameraTransformer
    return cls(controlnet, **backbone.model_dump())


def load_transformer(
    variant: Variant,
    base_transformer_folder: Path,
    variant_folder: Path,
    config: ModelConfig,
    *,
    mesh: ParallelMesh,
    dtype: torch.dtype,
    options: ComputeOptions,
) -> WorldStereoTransformer:
    """The variant's transformer with its checkpoint's weights, ready for inference.

    The model is built without memory; each tensor then goes from its file to the device, as much
    of it as this rank holds. The base's weights are opened only if the variant leaves any out.

    Args:
        variant: decides on the class.
        base_transformer_folder: ``config.json`` and ``diffusion_pytorch_model.safetensors`` of
            the base model, whole or in shards with an index.
        variant_folder: ``model.safetensors`` of the variant, likewise.
        config: the variant's configuration.
        mesh: the ranks, all of which load at once; the parameters go to this rank's device.
        dtype: of all parameters but those that ``stays_float32`` names.
        options: how the model computes.

    Returns:
        The model in evaluation mode, without gradients.

    Raises:
        CheckpointError: a file is missing or damaged, a key is missing or unexpected, or a shape
            does not fit.
        ParameterError: the model cannot be split as the mesh says, or an option does not go with
            the device.
    """
    backbone = read_backbone_config(base_transformer_folder)
    check_layout(mesh.layout, variant, config, backbone)
    with torch.device("meta"):
        model = build_transformer(variant, backbone, config.controlnet_cfg)
    stored = locate_tensors(model, base_transformer_folder, variant_folder)
    nn.Module.to(model, dtype)  # diffusers' own warns of what WorldStereoTransformer sees to
    model.requires_grad_(False).eval()
    shared = shares_control(mesh.layout, config, backbone)
    parallelize_transformer(model, mesh, options, share_control=shared)
    if mesh.layout.fsdp:
        model.to_empty(device=mesh.device)
    for name, tensor in checkpoint_tensors(stored):
        assign(model, name, tensor, mesh.device)
    for module in model.modules():
        if isinstance(module, RotaryPositions):
            module.rebuild(mesh.device)
    return model


def locate_tensors(
    model: nn.Module, base_folder: Path, variant_folder: Path
) -> dict[str, StoredTensor]:
    """Find and check every tensor of the model by the files' headers alone.

    Args:
        model: the model to fill, which may be on the meta device.
        base_folder: the base model's ``transformer`` folder.
        variant_folder: the variant's folder, whose tensors take precedence.

    Returns:
        One entry for each name of the model's ``state_dict``.

    Raises:
        CheckpointError: as ``load_transformer``.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    stored = _headers(weight_files(variant_folder, VARIANT_WEIGHTS))
    _check_keys(expected, stored, variant_folder)
    absent = [name for name in expected if name not in stored]
    required = [name for name in absent if name.startswith(_VARIANT_ONLY)]
    if required:
        raise CheckpointError(
            f"missing keys: {shortened(required)}",
            where=str(variant_folder / VARIANT_WEIGHTS),
            allowed="keys of the backbone alone may be absent",
            fix="use a complete checkpoint of this variant and its own config.json",
        )
    if not absent:
        return stored
    base = _headers(weight_files(base_folder, BASE_WEIGHTS))
    backbone = {name: shape for name, shape in expected.items() if name in base or name in absent}
    _check_keys(backbone, base, base_folder)
    missing = [name for name in absent if name not in base]
    if missing:
        raise CheckpointError(
            f"missing keys: {shortened(missing)}",
            where=str(base_folder / BASE_WEIGHTS),
            got=f"{len(missing)} of them in neither the variant's nor the base model's files",
            fix="use the base model that config.json names",
        )
    return stored | {name: base[name] for name in absent}


def checkpoint_tensors(stored: Mapping[str, StoredTensor]) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors, file by file, each mapped from its file when its turn comes.

    Raises:
        CheckpointError: a file is damaged.
    """
    by_file: dict[Path, list[str]] = {}
    for name, where in stored.items():
        by_file.setdefault(where.file, []).append(name)
    for file, names in by_file.items():
        with readable_weights(file), safe_open(file, framework="pt") as opened:
            for name in names:
                yield name, opened.get_tensor(name)


def assign(model: nn.Module, name: str, tensor: Tensor, device: torch.device) -> None:
    """Make a tensor the model's parameter of this name, on its device and in its dtype.

    Of a sharded parameter this rank's rows are read. A whole parameter owns its memory: a tensor
    that is mapped from a file would change with it.

    Args:
        model: with a parameter of this name, on the meta device unless it is sharded.
        name: as in its ``state_dict``.
        tensor: the whole, on the CPU; only what is used of it is read from its file.
        device: of this rank.
    """
    owner_name, _, attribute = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    parameter = owner.get_parameter(attribute)
    if isinstance(parameter, DTensor):
        _, (start, *_) = compute_local_shape_and_global_offset(
            parameter.shape, parameter.device_mesh, parameter.placements
        )
        mine = parameter.to_local()
        mine.copy_(tensor[start : start + len(mine)])
    elif isinstance(owner, Float8Linear) and attribute == "weight":
        owner.store_weight(tensor.to(device))
    else:
        moved = tensor.to(device, copy=True).to(parameter.dtype)
        setattr(owner, attribute, nn.Parameter(moved, requires_grad=False))


def _headers(files: Sequence[Path]) -> dict[str, StoredTensor]:
    """Names and shapes of all tensors in the files, without those that no Wan model reads."""
    found: dict[str, StoredTensor] = {}
    for file in files:
        with readable_weights(file), safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118  # a safetensors file is no mapping
                if UNUSED_KEY not in name:
                    found[name] = StoredTensor(file, tuple(opened.get_slice(name).get_shape()))
    return found


def _check_keys(
    expected: Mapping[str, tuple[int, ...]], stored: Mapping[str, StoredTensor], folder: Path
) -> None:
    """Refuse names that the model does not have, and other shapes than the model's."""
    unexpected = [name for name in stored if name not in expected]
    if unexpected:
        raise CheckpointError(
            f"unexpected keys: {shortened(unexpected)}",
            where=str(stored[unexpected[0]].file),
            allowed=f"the {len(expected)} keys of the model that {folder.name}/config.json tells",
            fix="use a checkpoint of this variant and its own config.json",
        )
    misshapen = [name for name, tensor in stored.items() if tensor.shape != expected[name]]
    if misshapen:
        first = misshapen[0]
        raise CheckpointError(
            f"shapes do not fit: {shortened(misshapen)}",
            where=str(stored[first].file),
            got=f"{first} {list(stored[first].shape)}",
            allowed=f"{first} {list(expected[first])}",
            fix="use a checkpoint of this variant and its own config.json",
        )


def _check_fit(backbone: BackboneConfig, controlnet: ControlNetConfig) -> None:
    """Refuse sizes with which no model can be built."""
    rules = (
        (backbone.added_kv_proj_dim == backbone.width, "added_kv_proj_dim", "heads x head size"),
        (backbone.in_channels > backbone.out_channels, "in_channels", "more than out_channels"),
        (backbone.width == controlnet.time_embed_dim, "time_embed_dim", str(backbone.width)),
        (
            controlnet.dim % (2 * controlnet.num_heads) == 0,
            "dim",
            f"a multiple of 2 x num_heads = {2 * controlnet.num_heads}",
        ),
        (
            controlnet.mid_channels >= 8
            and controlnet.mid_channels % (controlnet.mid_channels // 8) == 0,
            "mid_channels",
            "8 or more, a multiple of its number of groups, mid_channels // 8",
        ),
        (controlnet.add_channels > 1, "add_channels", "1 mask and 1 or more camera channels"),
    )
    for fits, field, allowed in rules:
        if not fits:
            owner = backbone if field in BackboneConfig.model_fields else controlnet
            raise CheckpointError(
                "the model's sizes do not fit together",
                where=field,
                got=str(getattr(owner, field)),
                allowed=allowed,
            )
