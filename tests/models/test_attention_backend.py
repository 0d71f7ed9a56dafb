"""Which attention kernels are taken, and what is said of the others."""

import pytest
import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from tests.models.tiny import MEMORY, tiny_inputs, tiny_model
from worldstereo.errors import MissingDependencyError, ParameterError
from worldstereo.models.attention import ContextAttentionProcessor, SelfAttentionProcessor
from worldstereo.models.attention_backend import (
    attention_backend,
    set_attention,
)

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)  # by name alone: nothing runs on it


def test_auto_is_pytorch_s_own() -> None:
    for device in (CPU, GPU):
        backend = attention_backend("auto", device)
        assert backend is AttentionBackendName.NATIVE


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ParameterError, match=r"no such attention backend; got 'flush'.*native"):
        attention_backend("flush", GPU)


@pytest.mark.parametrize("name", ["_native_cudnn", "fp8"])
def test_a_gpu_s_kernel_is_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(ParameterError, match=r"cpu|CPU"):
        attention_backend(name, CPU)


def test_a_package_that_is_missing_is_named() -> None:
    with pytest.raises(MissingDependencyError, match=r"sage cannot be used.*sageattention"):
        attention_backend("sage", GPU)


@torch.no_grad()
def test_setting_it_reaches_every_attention_and_changes_no_bit() -> None:
    model, inputs = tiny_model(MEMORY), tiny_inputs(MEMORY)
    expected = model(**inputs)
    set_attention(model, AttentionBackendName.NATIVE, None)
    processors = [getattr(module, "processor", None) for module in model.modules()]
    kinds = (SelfAttentionProcessor, ContextAttentionProcessor)
    found = [p for p in processors if isinstance(p, kinds)]
    blocks = len(model.blocks)
    assert len(found) == 2 * blocks + len(model.controlnet.controlnet_blocks)
    assert all(p._attention_backend is AttentionBackendName.NATIVE for p in found)
    assert torch.equal(model(**inputs), expected)


def test_8_bits_are_for_self_attention_alone() -> None:
    model = tiny_model(MEMORY)
    set_attention(model, "fp8", None)
    assert model.blocks[0].attn1.processor._attention_backend == "fp8"
    assert model.blocks[0].attn2.processor._attention_backend is AttentionBackendName.NATIVE
