"""The bundled model is what its command writes, and has the published layout."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training import seed_tiny
from worldstereo.config import VARIANTS
from worldstereo.models.source import read_model_config


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rebuilt") / "worldstereo-tiny"
    seed_tiny.write_model(folder)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in seed_tiny.files_of(folder)
    }


def test_the_command_writes_the_bundled_files(rebuilt: Path) -> None:
    assert hashes(rebuilt) == hashes(seed_tiny.BUNDLED)


def test_the_whole_is_at_most_4_mb() -> None:
    size = sum(path.stat().st_size for path in seed_tiny.files_of(seed_tiny.BUNDLED))
    assert size <= 4_000_000


def test_it_has_the_published_layout() -> None:
    index = json.loads((seed_tiny.BUNDLED / "base" / "model_index.json").read_text())
    parts = {name for name in index if not name.startswith("_")}
    assert parts == {path.name for path in (seed_tiny.BUNDLED / "base").iterdir() if path.is_dir()}
    for variant in VARIANTS:
        files = {path.name for path in (seed_tiny.BUNDLED / variant).iterdir()}
        assert files == {"config.json", "model.safetensors"}
        config = read_model_config(seed_tiny.BUNDLED / variant)
        assert config.nframe == 21
        assert all(side % 16 == 0 for size in config.scale_map for side in size)
        assert 128 / 192 in {height / width for height, width in config.scale_map}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_differ_and_leave_most_of_the_backbone_to_the_base(variant: str) -> None:
    weights = load_file(seed_tiny.BUNDLED / variant / "model.safetensors")
    base = load_file(
        seed_tiny.BUNDLED / "base" / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    assert set(weights) & set(base) == set(seed_tiny.OVERLAID)
    assert not torch.equal(weights["proj_out.weight"], base["proj_out.weight"])
    own = {name for name in weights if name.startswith("controlnet.")}
    rest = set(weights) - own - set(seed_tiny.OVERLAID)
    memory = {f"camera_embedding.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    expected = set() if variant == "worldstereo-camera" else memory | {"ref_index_embedding.weight"}
    assert rest == expected


def test_weights_keep_their_precision() -> None:
    weights = load_file(
        seed_tiny.BUNDLED / "base" / "transformer" / "diffusion_pytorch_model.safetensors"
    )
    for name, tensor in weights.items():
        precise = tensor.ndim == 1 or any(part in name for part in seed_tiny.PRECISE)
        assert tensor.dtype == (torch.float32 if precise else torch.bfloat16), name


def test_a_weight_depends_on_its_name_and_shape_alone() -> None:
    first = seed_tiny.seeded("a.weight", (64, 64))
    assert torch.equal(first, seed_tiny.seeded("a.weight", (64, 64)))
    assert not torch.equal(first, seed_tiny.seeded("b.weight", (64, 64)))
    assert float(first.float().std()) == pytest.approx(1 / 8, rel=0.1)
    assert float(seed_tiny.seeded("norm.weight", (512,)).mean()) == pytest.approx(1, abs=0.05)
    assert float(seed_tiny.seeded("norm.bias", (512,)).mean()) == pytest.approx(0, abs=0.05)
