"""Loading: the overlay, what is refused and how it reads, dtypes and rotary tables."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.checkpoints import Checkpoint, is_backbone, write_shards
from tests.models.tiny import BACKBONE, CAMERA, CONTROLNET, MEMORY, tiny_inputs, tiny_model
from worldstereo.config import VARIANTS, ControlNetConfig, Variant
from worldstereo.errors import CheckpointError
from worldstereo.models.attention import RotaryPositions
from worldstereo.models.checkpoint import build_transformer
from worldstereo.models.transformer import (
    CameraTransformer,
    MemoryTransformer,
    stays_float32,
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    return Checkpoint(tmp_path, MEMORY)


def without(tensors: dict[str, torch.Tensor], *names: str) -> dict[str, torch.Tensor]:
    assert set(names) <= tensors.keys()
    return {name: value for name, value in tensors.items() if name not in names}


def refusal(checkpoint: Checkpoint) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoint.load()
    return caught.value


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_a_complete_checkpoint_loads_and_runs(tmp_path: Path, variant: Variant) -> None:
    model = Checkpoint(tmp_path, variant).load()
    expected_class = CameraTransformer if variant == CAMERA else MemoryTransformer
    assert type(model) is expected_class
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    inputs = tiny_inputs(variant)
    assert torch.equal(model(**inputs), tiny_model(variant)(**inputs))


def test_keys_that_the_variant_lacks_keep_the_base_value(checkpoint: Checkpoint) -> None:
    absent = ("blocks.1.ffn.net.2.weight", "proj_out.bias", "scale_shift_table")
    checkpoint.write_variant(without(checkpoint.weights, *absent))
    state = checkpoint.load().state_dict()
    for name, value in checkpoint.weights.items():
        expected = value + 1 if name in absent else value
        assert torch.equal(state[name], expected), name


def test_a_variant_that_holds_everything_needs_no_base_weights(checkpoint: Checkpoint) -> None:
    (checkpoint.transformer / "diffusion_pytorch_model.safetensors").unlink()
    state = checkpoint.load().state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.weights.items())


def test_both_parts_may_be_sharded(checkpoint: Checkpoint) -> None:
    overlay = without(checkpoint.weights, "proj_out.bias")
    base = {name: value + 1 for name, value in checkpoint.weights.items() if is_backbone(name)}
    write_shards(checkpoint.folder, "model.safetensors", overlay, 2)
    write_shards(checkpoint.transformer, "diffusion_pytorch_model.safetensors", base, 3)
    state = checkpoint.load().state_dict()
    assert torch.equal(state["proj_out.bias"], base["proj_out.bias"])
    assert torch.equal(state["proj_out.weight"], overlay["proj_out.weight"])


def test_tensors_that_diffusers_ignores_are_ignored(checkpoint: Checkpoint) -> None:
    extra = {"blocks.0.attn2.norm_added_q.weight": torch.ones(24)}
    checkpoint.write_variant(without(checkpoint.weights, "proj_out.bias") | extra)
    base = {name: value for name, value in checkpoint.weights.items() if is_backbone(name)}
    checkpoint.write_base(base | extra)
    assert extra.keys().isdisjoint(checkpoint.load().state_dict())


@pytest.mark.parametrize(
    "name", ["controlnet.proj_out.1.weight", "camera_embedding.4.bias", "controlnet.proj_in.bias"]
)
def test_a_missing_key_of_the_variant_is_named(checkpoint: Checkpoint, name: str) -> None:
    checkpoint.write_variant(without(checkpoint.weights, name))
    error = refusal(checkpoint)
    assert error.what == f"missing keys: {name}"
    assert error.where == str(checkpoint.folder / "model.safetensors")


def test_many_missing_keys_are_counted(checkpoint: Checkpoint) -> None:
    checkpoint.write_variant({k: v for k, v in checkpoint.weights.items() if is_backbone(k)})
    error = refusal(checkpoint)
    count = len([name for name in checkpoint.weights if not is_backbone(name)])
    assert f"and {count - 3} more" in error.what
    assert error.what.count("controlnet.") == 3


def test_a_backbone_key_in_neither_file_is_named(checkpoint: Checkpoint) -> None:
    left = without(checkpoint.weights, "proj_out.bias")
    checkpoint.write_variant(left)
    checkpoint.write_base({name: value for name, value in left.items() if is_backbone(name)})
    error = refusal(checkpoint)
    assert error.what == "missing keys: proj_out.bias"
    assert str(checkpoint.transformer) in str(error.where)


def test_an_unexpected_key_is_named(checkpoint: Checkpoint) -> None:
    extra = {"blocks.3.ffn.net.2.bias": torch.zeros(24), "head.weight": torch.zeros(2)}
    checkpoint.write_variant(checkpoint.weights | extra)
    assert refusal(checkpoint).what == f"unexpected keys: {', '.join(extra)}"
    checkpoint.write_variant(without(checkpoint.weights, "proj_out.bias"))
    base = {name: value for name, value in checkpoint.weights.items() if is_backbone(name)}
    checkpoint.write_base(base | extra)
    error = refusal(checkpoint)
    assert error.what == f"unexpected keys: {', '.join(extra)}"
    assert str(checkpoint.transformer) in str(error.where)


def test_a_camera_checkpoint_refuses_camera_embedding(tmp_path: Path) -> None:
    camera = Checkpoint(tmp_path, CAMERA)
    camera.write_variant(tiny_model(MEMORY).state_dict())
    assert "camera_embedding.0.bias" in refusal(camera).what


@pytest.mark.parametrize("name", ["proj_out.bias", "controlnet.proj_out.0.weight"])
def test_a_misshapen_key_is_named(checkpoint: Checkpoint, name: str) -> None:
    wrong = checkpoint.weights[name][:-1]
    checkpoint.write_variant(checkpoint.weights | {name: wrong})
    error = refusal(checkpoint)
    assert error.what == f"shapes do not fit: {name}"
    assert error.got == f"{name} {list(wrong.shape)}"
    assert error.allowed == f"{name} {list(checkpoint.weights[name].shape)}"


def test_a_missing_file_is_named(checkpoint: Checkpoint) -> None:
    (checkpoint.folder / "model.safetensors").unlink()
    error = refusal(checkpoint)
    assert error.where == str(checkpoint.folder / "model.safetensors")
    assert error.fix is not None
    checkpoint.write_variant(without(checkpoint.weights, "proj_out.bias"))
    (checkpoint.transformer / "diffusion_pytorch_model.safetensors").unlink()
    assert str(checkpoint.transformer) in str(refusal(checkpoint).where)
    (checkpoint.transformer / "config.json").unlink()
    assert refusal(checkpoint).where == str(checkpoint.transformer / "config.json")


def test_a_missing_shard_is_named(checkpoint: Checkpoint) -> None:
    files = write_shards(checkpoint.folder, "model.safetensors", checkpoint.weights, 3)
    files[1].unlink()
    error = refusal(checkpoint)
    assert error.where == str(files[1])
    assert "of 3 model files 1" in error.what


@pytest.mark.parametrize("kept", [0, 4, 300, 20_000, -1])
def test_a_truncated_file_is_refused(checkpoint: Checkpoint, kept: int) -> None:
    file = checkpoint.folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:kept])
    error = refusal(checkpoint)
    assert error.where == str(file)
    assert "safetensors" in error.what


def test_an_index_that_leaves_its_folder_is_refused(checkpoint: Checkpoint) -> None:
    (checkpoint.folder / "model.safetensors").unlink()
    index = checkpoint.folder / "model.safetensors.index.json"
    for content, what in [
        ('{"weight_map": {"a": "../b.safetensors"}}', "outside its folder"),
        ('{"weight_map": {"a": 1}}', "no weight_map"),
        ("[]", "no JSON object"),
        ("{", "is no JSON"),
    ]:
        index.write_text(content)
        assert what in refusal(checkpoint).what


@torch.no_grad()
def test_bfloat16_keeps_norms_and_rotary_tables_exact(checkpoint: Checkpoint) -> None:
    half = {name: value.bfloat16() for name, value in checkpoint.weights.items()}
    checkpoint.write_variant(half | {"scale_shift_table": checkpoint.weights["scale_shift_table"]})
    model = checkpoint.load(torch.bfloat16)
    for name, value in model.state_dict().items():
        assert value.dtype == (torch.float32 if stays_float32(name) else torch.bfloat16), name
    exact = checkpoint.weights["scale_shift_table"]
    assert torch.equal(model.state_dict()["scale_shift_table"], exact)
    fresh = tiny_model(MEMORY)
    for name, module in model.named_modules():
        if isinstance(module, RotaryPositions):
            original = fresh.get_submodule(name)
            assert torch.equal(module.freqs_cos, original.freqs_cos)
            assert torch.equal(module.freqs_sin, original.freqs_sin)
    assert model(**tiny_inputs(MEMORY)).isfinite().all()


def test_parameters_do_not_lie_in_the_file(checkpoint: Checkpoint) -> None:
    model = checkpoint.load()
    file = checkpoint.folder / "model.safetensors"
    size = file.stat().st_size
    with file.open("r+b") as opened:
        opened.seek(size // 2)
        opened.write(bytes(size - size // 2))
    shutil.rmtree(checkpoint.folder)
    state = model.state_dict()
    assert all(torch.equal(state[name], value) for name, value in checkpoint.weights.items())


@pytest.mark.parametrize(
    ("backbone", "controlnet", "where"),
    [
        ({"added_kv_proj_dim": 20}, {}, "added_kv_proj_dim"),
        ({}, {"time_embed_dim": 20}, "time_embed_dim"),
        ({}, {"num_heads": 3}, "dim"),
        ({}, {"mid_channels": 4}, "mid_channels"),
        ({}, {"mid_channels": 28}, "mid_channels"),
        ({}, {"add_channels": 1}, "add_channels"),
        ({"in_channels": 16}, {}, "in_channels"),
        ({"image_dim": None}, {}, "transformer/config.json"),
        ({"qk_norm": "layer_norm"}, {}, "transformer/config.json"),
        ({"patch_size": [2, 2, 2]}, {}, "transformer/config.json"),
    ],
)
def test_sizes_that_give_no_model_are_refused(
    backbone: dict[str, Any], controlnet: dict[str, Any], where: str
) -> None:
    config = ControlNetConfig.model_validate(CONTROLNET | controlnet)
    with pytest.raises(CheckpointError) as caught:
        build_transformer(MEMORY, BACKBONE | backbone, config)
    assert caught.value.where == where
