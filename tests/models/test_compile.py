"""Compiled blocks: one graph a kind of block, whatever the number of references."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.models.tiny import CAMERA, FRAMES, MEMORY, tiny_inputs, tiny_model
from worldstereo.models.parallelize import compile_blocks


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def inputs_with(references: int) -> dict:
    index = [i % (FRAMES - 1) for i in range(references)]
    return tiny_inputs(MEMORY, references=references) | {"ref_index": index}


@torch.no_grad()
def test_any_number_of_references_runs_the_same_graphs() -> None:
    counter = CompileCounter()
    plain, compiled = tiny_model(MEMORY), tiny_model(MEMORY)
    compile_blocks(compiled, backend=counter)
    for references in (2, 1, 5, 8):
        inputs = inputs_with(references)
        assert torch.equal(compiled(**inputs), plain(**inputs))
    # Blocks that keep the references, the last one, which drops them, and the ControlNet's.
    assert counter.frame_count == 3


@torch.no_grad()
def test_a_camera_model_has_one_graph_for_each_kind_of_block() -> None:
    counter = CompileCounter()
    plain, compiled = tiny_model(CAMERA), tiny_model(CAMERA)
    compile_blocks(compiled, backend=counter)
    for batch in (1, 1):
        inputs = tiny_inputs(CAMERA, batch=batch)
        assert torch.equal(compiled(**inputs), plain(**inputs))
    assert counter.frame_count == 2


@torch.no_grad()
def test_keys_and_values_made_before_run_compiled_too() -> None:
    counter = CompileCounter()
    plain, compiled = tiny_model(MEMORY), tiny_model(MEMORY)
    compile_blocks(compiled, backend=counter)
    inputs = tiny_inputs(MEMORY)
    shared = {
        "text_keys": compiled.text_keys(inputs.pop("encoder_hidden_states")),
        "image_keys": compiled.image_keys(inputs.pop("encoder_hidden_states_image")),
    }
    assert torch.equal(compiled(**inputs, **shared), plain(**inputs, **shared))
    assert counter.frame_count == 3
