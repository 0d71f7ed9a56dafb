"""8-bit matrix products against exact ones, and where they are used."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.golden import recipe
from tests.models.tiny import MEMORY, tiny_inputs, tiny_model
from worldstereo.config import ComputeOptions
from worldstereo.errors import ParameterError
from worldstereo.models.float8 import FLOAT8, Float8Linear, gelu, quantise_rows, use_float8
from worldstereo.models.parallelize import parallelize_transformer
from worldstereo.parallel.mesh import ParallelMesh

# Half a unit in the last of three bits of the mantissa, and the smallest numbers' steps.
ROUNDING = 2**-4


@given(st.integers(1, 6), st.floats(1e-4, 1e4), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_row_in_8_bits_is_the_row_to_one_sixteenth(rows: int, size: float, salt: int) -> None:
    values = size * recipe.gaussian("values", (rows, 32), salt)
    rounded, scale = quantise_rows(values)
    assert rounded.dtype == FLOAT8
    assert scale.shape == (rows, 1)
    restored = rounded.float() * scale
    largest = values.abs().amax(dim=1, keepdim=True)
    assert ((restored - values).abs() <= ROUNDING * values.abs() + 2**-9 * largest / 448).all()
    assert torch.allclose(restored.abs().amax(dim=1, keepdim=True), largest, rtol=1e-5)


def test_gelu_is_that_of_the_feed_forward() -> None:
    x = torch.linspace(-12, 12, 2001)
    expected = nn.functional.gelu(x.double(), approximate="tanh")
    assert torch.allclose(gelu(x).double(), expected, rtol=1e-5, atol=1e-7)
    narrow = x.bfloat16()
    expected = nn.functional.gelu(narrow.double(), approximate="tanh")
    assert gelu(narrow).dtype == torch.bfloat16
    assert torch.allclose(gelu(narrow).double(), expected, rtol=2**-8, atol=1e-7)


def test_zeros_stay_zeros() -> None:
    rounded, scale = quantise_rows(torch.zeros(2, 16))
    assert torch.equal(rounded.float() * scale, torch.zeros(2, 16))


def test_a_layer_is_near_the_exact_one_and_equal_to_its_slow_twin() -> None:
    exact = recipe.fill_(nn.Linear(64, 48)).to(torch.bfloat16)
    x = recipe.gaussian("x", (2, 5, 64)).to(torch.bfloat16)
    layer = Float8Linear(exact)
    layer.store_weight(exact.weight)
    actual = layer(x)
    assert actual.shape == (2, 5, 48)
    assert actual.dtype == torch.bfloat16
    expected = exact(x).float()
    error = (actual.float() - expected).norm() / expected.norm()
    assert 0.001 < error < 0.05
    # The twin multiplies the rounded numbers exactly.
    rows, row_scale = quantise_rows(x.flatten(0, 1))
    weight, weight_scale = quantise_rows(exact.weight)
    twin = (rows.float() @ weight.float().t()) * row_scale * weight_scale.t() + exact.bias.float()
    assert torch.allclose(actual.flatten(0, 1).float(), twin, rtol=2**-7, atol=2**-7)


@torch.no_grad()
def test_the_backbone_s_products_are_replaced_and_no_others() -> None:
    """Sizes that 16 divides, as the products ask for, are the full model's, not the tiny one's."""
    model = tiny_model(MEMORY)
    use_float8(model)
    replaced = {n for n, m in model.named_modules() if isinstance(m, Float8Linear)}
    assert len(replaced) == 8 * len(model.blocks)
    assert all(name.startswith("blocks.") for name in replaced)
    assert "blocks.0.attn2.to_k" not in replaced  # made once a prompt
    left = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
    assert any(name.startswith("controlnet.") for name in left)


def test_a_cpu_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"fp8: .*got a CPU.*compute capability 8\.9"):
        parallelize_transformer(
            tiny_model(MEMORY), ParallelMesh.single("cpu"), ComputeOptions(fp8=True)
        )
    assert tiny_model(MEMORY)(**tiny_inputs(MEMORY)).isfinite().all()
