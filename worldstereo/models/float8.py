"""Matrix products in 8 bits: each row of the input and of the weight has a scale of its own.

Owns ``Float8Linear`` and which layers of a transformer become one. An opt-in: the products are
about twice as fast on Hopper, and what that costs in accuracy is measured
(benchmarks/forward.py), not assumed.

The scheme is the row-wise one of "FP8-LM" and of torchao's ``PerRow``: x = s x8 with
s = max |row| / 448, the largest number of ``float8_e4m3fn``. Hopper sums products in a little less
than float32 (``use_fast_accum``), as its fast kernels do.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from worldstereo.errors import ParameterError
from worldstereo.models.block import StereoBlock

FLOAT8 = torch.float8_e4m3fn
_LARGEST = torch.finfo(FLOAT8).max
# A row of zeros gets this scale, not an infinite one.
_SMALLEST = 1e-12
# Tensor cores multiply 8-bit numbers from this compute capability on.
_CAPABILITY = (8, 9)
# Of each block of the backbone: all products over the tokens. Keys and values of text and image
# are made once a prompt and stay as they are.
_LAYERS = (
    *(f"attn1.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"attn2.{name}" for name in ("to_q", "to_out.0")),
    *("ffn.net.0.proj", "ffn.net.2"),
)


def quantise_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in 8 bits and their scales.

    Args:
        values: [rows, columns], floating.

    Returns:
        [rows, columns] ``float8_e4m3fn`` and [rows, 1] float32; their product is about ``values``.
    """
    largest = values.abs().amax(dim=-1, keepdim=True).float()
    scale = (largest / _LARGEST).clamp_min(_SMALLEST)
    # A product is faster than a quotient. Clamped: rounding could step over the largest number,
    # which has no infinity behind it.
    scaled = (values.float() * scale.reciprocal()).clamp(-_LARGEST, _LARGEST)
    return scaled.to(FLOAT8), scale


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh approximation, as the feed-forward has it.

    Written by the sigmoid, (1 + tanh u) / 2 = sigmoid(2 u): the same function. Together with the
    rounding behind it, which computes it twice, it takes a quarter less time than by the tangent.
    """
    wide = x.float()
    inner = wide + 0.044715 * wide * wide * wide
    return (wide * torch.sigmoid(2 * math.sqrt(2 / math.pi) * inner)).type_as(x)


class _ProjectedGELU(nn.Module):
    """diffusers' ``GELU``, the first half of a feed-forward, by ``gelu`` above."""

    def __init__(self, proj: nn.Module) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, hidden_states: Tensor) -> Tensor:
        return gelu(self.proj(hidden_states))


class Float8Linear(nn.Module):
    """A linear layer whose product is in 8 bits, in place of one of the same sizes.

    Args:
        linear: whose sizes, dtype and bias are taken; its weight is quantised by ``store_weight``.
    """

    bias: Tensor | None

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight
        empty = torch.empty(weight.shape, dtype=FLOAT8, device=weight.device)
        scale = torch.empty(len(weight), 1, dtype=torch.float32, device=weight.device)
        self.weight = nn.Parameter(empty, requires_grad=False)
        self.weight_scale = nn.Parameter(scale, requires_grad=False)
        self.bias = linear.bias
        self.dtype = weight.dtype

    def store_weight(self, weight: Tensor) -> None:
        """Take a weight [out, in] and keep it in 8 bits, on the weight's device."""
        quantised, scale = quantise_rows(weight)
        self.weight = nn.Parameter(quantised, requires_grad=False)
        self.weight_scale = nn.Parameter(scale, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out] in the layer's dtype."""
        rows, scale = quantise_rows(x.flatten(0, -2))
        # torch.nn.functional.scaled_mm says the same, but torch 2.11 cannot compile it.
        product: Tensor = torch._scaled_mm(
            rows,
            self.weight.t(),
            scale_a=scale,
            scale_b=self.weight_scale.t(),
            bias=None if self.bias is None else self.bias.to(torch.bfloat16),
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
        )
        return product.reshape(*x.shape[:-1], -1).to(self.dtype)


def check_float8(device: torch.device) -> None:
    """ParameterError where the device has no 8-bit matrix products."""
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if capability is None or capability < _CAPABILITY:
        got = "a CPU" if capability is None else "compute capability {}.{}".format(*capability)
        raise ParameterError(
            "this device does not multiply in 8 bits",
            where="precision: fp8",
            got=got,
            allowed="a GPU of compute capability 8.9 or more (Ada, Hopper, Blackwell)",
            fix="use precision bfloat16",
        )


def use_float8(model: nn.Module) -> None:
    """Put ``Float8Linear`` in the place of the layers of all backbone blocks.

    Args:
        model: on the meta device, or with weights: those are quantised at once.
    """
    for block in model.modules():
        if not isinstance(block, StereoBlock):
            continue
        for name in _LAYERS:
            owner, _, attribute = name.rpartition(".")
            linear = block.get_submodule(name)
            assert isinstance(linear, nn.Linear), name
            replacement = Float8Linear(linear)
            if not linear.weight.is_meta:
                replacement.store_weight(linear.weight)
            setattr(block.get_submodule(owner), attribute, replacement)
        block.ffn.net[0] = _ProjectedGELU(block.ffn.net[0].proj)
