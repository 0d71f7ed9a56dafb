"""What 8-bit attention costs in accuracy, by a slow twin that rounds where cuDNN does."""

import math
import sys

import pytest
import torch
from torch import Tensor

from worldstereo.errors import MissingDependencyError, ParameterError
from worldstereo.models.attention_fp8 import (
    E4M3_MAX,
    Rounded,
    attention_fp8,
    cudnn_attention,
    restore,
    round_to_e4m3,
)

E4M3 = torch.float8_e4m3fn
# A number keeps three bits after its first: the error of each is about 2.6 % of it, and queries,
# keys, probabilities, values and the output are rounded. Values around zero are the worst case.
TOLERANCE = 0.07
OFFSET = 20.0
GPU = torch.cuda.is_available() and torch.cuda.get_device_capability() >= (9, 0)


def gaussians(tokens: int = 384, *, offset: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [1, tokens, 2, 64] bfloat16; keys with an offset per channel."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 1, tokens, 2, 64, generator=generator)
    key = key + offset * torch.randn(1, 1, 2, 64, generator=generator)
    return query.bfloat16(), key.bfloat16(), value.bfloat16()


def attend_exactly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [B, tokens, H, D] in float64."""
    query, key, value = (x.double().transpose(1, 2) for x in (query, key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return (scores.softmax(-1) @ value).transpose(1, 2)


def mix_slowly(rounded: Rounded) -> Tensor:
    """What cuDNN computes, one head at a time: e4m3 in, float32 sums, e4m3 out."""
    mixed = torch.empty_like(rounded.query)
    for head in range(mixed.shape[2]):
        query, key, value = (x[0, :, head].float() for x in rounded[:3])
        scores = query @ key.T * (rounded.query_step * rounded.key_step).view(())
        scores = scores / math.sqrt(query.shape[-1])
        exponentials = torch.exp(scores - scores.amax(-1, keepdim=True))
        weights = (exponentials * E4M3_MAX).to(E4M3).float() / E4M3_MAX
        sums = exponentials.sum(-1, keepdim=True)
        mixed[0, :, head] = (weights @ value / sums).to(E4M3)
    return mixed


def attend_slowly(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    rounded = round_to_e4m3(query, key, value)
    return restore(mix_slowly(rounded), rounded)


def attend_without_smoothing(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The same with keys that are rounded as they are."""
    step = key.float().abs().amax().view(1, 1, 1, 1) / E4M3_MAX
    rounded = round_to_e4m3(query, key, value)
    rounded = rounded._replace(key=(key.float() / step).to(E4M3), key_step=step)
    return restore(mix_slowly(rounded), rounded)


def error(result: Tensor, exact: Tensor) -> float:
    """Relative, in the L2 norm."""
    return float((result.double() - exact).norm() / exact.norm())


def test_eight_bits_are_close_to_exact_attention() -> None:
    inputs = gaussians()
    assert error(attend_slowly(*inputs), attend_exactly(*inputs)) < TOLERANCE


def test_an_offset_of_the_keys_is_harmless_where_they_are_smoothed_alone() -> None:
    inputs = gaussians(offset=OFFSET)
    exact = attend_exactly(*inputs)
    # bfloat16 has rounded keys with so large an offset before we see them; exact sees the same.
    assert error(attend_slowly(*inputs), exact) < TOLERANCE
    assert error(attend_without_smoothing(*inputs), exact) > 3 * TOLERANCE


def test_an_offset_of_the_values_is_kept_to_more_than_eight_bits() -> None:
    query, key, value = gaussians()
    value = value + 10
    result = attend_slowly(query, key, value)
    assert error(result, attend_exactly(query, key, value)) < TOLERANCE / 20


def test_rounded_numbers_fill_the_range_and_restore_what_was_given() -> None:
    query, key, value = gaussians(offset=3.0)
    rounded = round_to_e4m3(query, key, value)
    for whole in rounded[:2]:
        assert whole.dtype is E4M3
        assert whole.float().abs().max() == E4M3_MAX
    # Each head and channel of the values has its own scale.
    assert (rounded.value.float().abs().amax(1) == E4M3_MAX).all()
    assert error(rounded.query.float() * rounded.query_step, query.double()) < 0.03
    centered = key.double() - key.double().mean(1, keepdim=True)
    assert error(rounded.key.float() * rounded.key_step, centered) < 0.03
    assert error(restore(rounded.value, rounded), value.double()) < 0.03


def test_zeros_stay_zeros() -> None:
    zeros = torch.zeros(1, 16, 2, 64, dtype=torch.bfloat16)
    assert attend_slowly(zeros, zeros, zeros).abs().max() == 0


def test_compiled_code_knows_the_shape_and_dtype_of_the_operation() -> None:
    query = torch.empty(1, 30, 2, 64, dtype=E4M3, device="meta")
    context = torch.empty(1, 7, 2, 64, dtype=E4M3, device="meta")
    step = torch.empty(1, 1, 1, 1, device="meta")
    mixed = cudnn_attention(query, context, context, step, step)
    assert mixed.shape == query.shape
    assert mixed.dtype is E4M3
    assert mixed.is_contiguous()


def test_a_device_without_8_bit_products_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParameterError, match=r"got cpu; allowed: .* 9\.0 \(Hopper\) or more"):
        attention_fp8(*gaussians(8))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    with pytest.raises(ParameterError, match=r"compute capability 8\.9"):
        attention_fp8(*(_OnGpu() for _ in range(3)))  # type: ignore[arg-type]


def test_a_missing_package_is_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setitem(sys.modules, "cudnn", None)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[fp8\]'"):
        attention_fp8(*(_OnGpu() for _ in range(3)))  # type: ignore[arg-type]


class _OnGpu:
    """As much of a tensor as is looked at before anything is computed."""

    device = torch.device("cuda:0")


@pytest.mark.skipif(not GPU, reason="needs a Hopper GPU")
@pytest.mark.parametrize("context", [384, 257])
def test_cudnn_agrees_with_the_slow_twin(context: int) -> None:
    pytest.importorskip("cudnn")
    query, key, value = gaussians(offset=3.0)
    query, key, value = query.cuda(), key[:, :context].cuda(), value[:, :context].cuda()
    exact = attend_exactly(query, key, value)
    result = attention_fp8(query, key, value)
    assert result.dtype is torch.bfloat16
    assert error(result, exact) < TOLERANCE
    assert error(result, attend_slowly(query, key, value).double()) < TOLERANCE
    compiled = torch.compile(attention_fp8, fullgraph=True)(query, key, value)
    assert error(compiled, exact) < TOLERANCE
