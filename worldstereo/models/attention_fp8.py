"""Attention in 8-bit floating point (e4m3) on Hopper, through cuDNN's graph API; opt-in.

Owns what is rounded by which scales, and cuDNN's graphs, one for each layout. Leaves to others
where in a model it is used. nvidia-cudnn-frontend is imported by the first attention.

cuDNN 9 takes queries, keys and values with one scale each and, on Hopper, gives its output in
8 bits too (a bfloat16 output needs Blackwell). Four things keep that accurate:

* Keys are rounded less their mean over tokens: that adds one number to all scores of a query,
  which softmax does not see (SageAttention, Zhang et al., 2024, arXiv 2410.02367, section 4).
* Values are rounded less their mean over tokens, which is added to the output: probabilities
  sum to 1. The 8-bit output holds only what differs from that mean.
* Values have a scale for each head and channel (SageAttention2, arXiv 2411.10958), by which the
  output is scaled back: mixed values are no larger than the largest, and need no other scale.
* Probabilities, at most 1, are rounded times 448, e4m3's largest number.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any, NamedTuple

import torch
from torch import Tensor

from worldstereo.errors import MissingDependencyError, ParameterError

E4M3_MAX = 448.0
WHERE = "8-bit attention"

# Sizes and strides of [B, tokens, heads, head size].
Layout = tuple[tuple[int, ...], tuple[int, ...]]


class Rounded(NamedTuple):
    """Queries, keys and values in e4m3; a step, float32, is the number that 1 stands for."""

    query: Tensor  # [B, S, H, D]
    key: Tensor  # [B, T, H, D], less the mean over tokens
    value: Tensor  # [B, T, H, D], less the mean over tokens
    query_step: Tensor  # [1, 1, 1, 1]
    key_step: Tensor  # [1, 1, 1, 1]
    value_step: Tensor  # [B, 1, H, D]
    value_mean: Tensor  # [B, 1, H, D], float32


def attention_fp8(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention without a mask, scores scaled by 1 / sqrt(D), computed in 8 bits.

    Args:
        query: [B, S, H, D], float16 or bfloat16 on a Hopper GPU or newer; D a multiple of 16.
        key: [B, T, H, D].
        value: [B, T, H, D].

    Returns:
        [B, S, H, D] of the query's dtype.

    Raises:
        ParameterError: the device is no such GPU, or cuDNN has no kernel for these shapes.
        MissingDependencyError: nvidia-cudnn-frontend cannot be imported.
    """
    if not torch.compiler.is_compiling():  # compiled code is told when the graph is built
        require_cudnn(query.device)
    rounded = round_to_e4m3(query, key, value)
    return restore(cudnn_attention(*rounded[:5]), rounded).to(query.dtype)


def round_to_e4m3(query: Tensor, key: Tensor, value: Tensor) -> Rounded:
    """Round [B, tokens, H, D] to 8 bits, by plain operations that wait for nothing."""
    query_step = _step(query.abs().amax().float()).reshape(1, 1, 1, 1)
    key_mean, key_largest = _center(key)
    key_step = _step(key_largest.amax()).reshape(1, 1, 1, 1)
    value_mean, value_largest = _center(value)
    value_step = _step(value_largest)
    # Products are faster than quotients.
    query = (query.float() * query_step.reciprocal()).to(torch.float8_e4m3fn)
    key = ((key.float() - key_mean) * key_step.reciprocal()).to(torch.float8_e4m3fn)
    value = ((value.float() - value_mean) * value_step.reciprocal()).to(torch.float8_e4m3fn)
    return Rounded(query, key, value, query_step, key_step, value_step, value_mean)


def restore(mixed: Tensor, rounded: Rounded) -> Tensor:
    """The attention's result, float32, from the mixed rounded values [B, S, H, D]."""
    return mixed.float() * rounded.value_step + rounded.value_mean


def _center(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean over tokens and the largest distance to it, float32 [B, 1, H, D], in one pass."""
    mean = x.mean(dim=1, keepdim=True, dtype=torch.float32)
    low, high = torch.aminmax(x, dim=1, keepdim=True)
    return mean, torch.maximum(high.float() - mean, mean - low.float())


def _step(largest: Tensor) -> Tensor:
    return (largest / E4M3_MAX).clamp_min(torch.finfo(torch.float32).tiny)  # zeros stay zeros


@torch.library.custom_op("worldstereo::attention_fp8", mutates_args=(), device_types="cuda")
def cudnn_attention(
    query: Tensor, key: Tensor, value: Tensor, query_step: Tensor, key_step: Tensor
) -> Tensor:
    """Mix e4m3 values [B, T, H, D] by softmax; e4m3 [B, S, H, D] in the values' own steps."""
    layouts = [(tuple(x.shape), x.stride()) for x in (query, key, value)]
    return _graph(query.device, *layouts)(query, key, value, query_step, key_step)


@cudnn_attention.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, query_step: Tensor, key_step: Tensor) -> Tensor:
    return query.new_empty((*query.shape[:3], value.shape[3]))


def require_cudnn(device: torch.device) -> Any:
    """The module of nvidia-cudnn-frontend; raises as ``attention_fp8`` where it is of no use."""
    major, minor = torch.cuda.get_device_capability(device) if device.type == "cuda" else (0, 0)
    if major < 9:
        raise ParameterError(
            "this device has no matrix products in 8-bit floating point",
            where=WHERE,
            got=f"{device}, compute capability {major}.{minor}" if major else str(device),
            allowed="NVIDIA GPUs of compute capability 9.0 (Hopper) or more",
            fix="choose another attention",
        )
    try:
        return importlib.import_module("cudnn")
    except ImportError as error:
        raise MissingDependencyError(
            "nvidia-cudnn-frontend cannot be imported",
            where=WHERE,
            got=str(error),
            fix="install it with: pip install -e '.[fp8]'; or choose another attention",
        ) from error


class CudnnGraph:
    """cuDNN's forward attention in e4m3 for one layout of query, key and value."""

    def __init__(self, device: torch.device, query: Layout, key: Layout, value: Layout) -> None:
        self.cudnn = cudnn = require_cudnn(device)
        self.output_shape = (*query[0][:3], value[0][3])
        e4m3, float32 = cudnn.data_type.FP8_E4M3, cudnn.data_type.FLOAT
        scale = {"data_type": float32, "dim": [1] * 4, "stride": [1] * 4}
        fixed = {"descale_v": 1.0, "descale_s": 1 / E4M3_MAX, "scale_s": E4M3_MAX, "scale_o": 1.0}
        with torch.cuda.device(device):
            self.handle = _handle(device)
            kinds = {"intermediate_data_type": float32, "compute_data_type": float32}
            self.graph = graph = cudnn.pygraph(io_data_type=e4m3, handle=self.handle, **kinds)
            self.inputs = [
                graph.tensor(name=name, dim=_bhsd(shape), stride=_bhsd(stride), data_type=e4m3)
                for name, (shape, stride) in zip("qkv", (query, key, value), strict=True)
            ]
            self.inputs += [graph.tensor(name=f"descale_{name}", **scale) for name in "qk"]
            self.fixed = {
                graph.tensor(name=name, **scale): torch.full((1, 1, 1, 1), number, device=device)
                for name, number in fixed.items()
            }
            self.output, _, *largest = graph.sdpa_fp8(
                *self.inputs, *self.fixed, is_inference=True, attn_scale=query[0][3] ** -0.5
            )
            self.output.set_output(True).set_data_type(e4m3).set_dim(_bhsd(self.output_shape))
            self.output.set_stride(_bhsd(torch.empty(self.output_shape, device="meta").stride()))
            for number in largest:  # of probabilities and output: described, not computed
                number.set_data_type(float32).set_dim([1] * 4).set_stride([1] * 4)
            try:
                graph.validate()
                graph.build_operation_graph()
                graph.create_execution_plans([cudnn.heur_mode.A])
                graph.check_support()
                graph.build_plans()
            except cudnn.cudnnGraphNotSupportedError as error:
                raise ParameterError(
                    f"cuDNN has no kernel for these shapes ({error})",
                    where=WHERE,
                    got=f"query {query[0]}, key {key[0]}, value {value[0]}",
                    allowed="head sizes up to 256 that 16 divides",
                    fix="choose another attention",
                ) from error

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Query, key, value, steps of the first two to e4m3 [B, S, H, D], on the current stream."""
        output = inputs[0].new_empty(self.output_shape)
        workspace = inputs[0].new_empty(self.graph.get_workspace_size(), dtype=torch.uint8)
        tensors = dict(zip(self.inputs, inputs, strict=True)) | self.fixed | {self.output: output}
        with torch.cuda.device(output.device):
            stream = torch.cuda.current_stream().cuda_stream
            self.cudnn.set_stream(handle=self.handle, stream=stream)
            self.graph.execute(tensors, workspace, handle=self.handle)
        return output


_graph = functools.lru_cache(maxsize=64)(CudnnGraph)


@functools.cache
def _handle(device: torch.device) -> Any:  # of the current device, for one thread at a time
    return require_cudnn(device).create_handle()


def _bhsd(sizes: tuple[int, ...]) -> list[int]:  # cuDNN names the heads before the tokens
    return [sizes[0], sizes[2], sizes[1], sizes[3]]
