"""Parts of the base model that are missing, cut off or of another size."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.seed_tiny import BUNDLED
from worldstereo.errors import CheckpointError
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.components import (
    load_image_encoder,
    load_scheduler_config,
    load_text_encoder,
    load_vae,
)

ALONE, FLOAT = ParallelMesh.single("cpu"), torch.float32
PARTS: dict[str, Callable[[Path], object]] = {
    "vae": lambda base: load_vae(base, ALONE),
    "text_encoder": lambda base: load_text_encoder(base, ALONE, FLOAT),
    "tokenizer": lambda base: load_text_encoder(base, ALONE, FLOAT),
    "image_encoder": lambda base: load_image_encoder(base, ALONE, FLOAT),
    "image_processor": lambda base: load_image_encoder(base, ALONE, FLOAT),
    "scheduler": load_scheduler_config,
}
WITH_WEIGHTS = ("vae", "text_encoder", "image_encoder")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of the bundled base model, without its transformer."""
    folder = tmp_path / "base"
    shutil.copytree(BUNDLED / "base", folder, ignore=shutil.ignore_patterns("transformer"))
    return folder


def weights_of(base: Path, part: str) -> Path:
    (path,) = (base / part).glob("*.safetensors")
    return path


@pytest.mark.parametrize("part", PARTS)
def test_whole_parts_are_loaded(base: Path, part: str) -> None:
    assert PARTS[part](base) is not None


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_folder_is_named(base: Path, part: str) -> None:
    shutil.rmtree(base / part)
    with pytest.raises(CheckpointError, match="lacks a part") as caught:
        PARTS[part](base)
    assert caught.value.where == str(base / part)


@pytest.mark.parametrize("part", PARTS)
def test_an_empty_folder_is_named(base: Path, part: str) -> None:
    for path in (base / part).iterdir():
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        PARTS[part](base)
    assert caught.value.where == str(base / part)


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_missing_weights_are_named(base: Path, part: str) -> None:
    weights_of(base, part).unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        PARTS[part](base)


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_cut_off_weights_are_refused(base: Path, part: str) -> None:
    path = weights_of(base, part)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="cannot be read"):
        PARTS[part](base)


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_a_missing_key_is_named(base: Path, part: str) -> None:
    path = weights_of(base, part)
    weights = load_file(path)
    # The last layer that is used: what is built without it would be random.
    key = sorted(name for name in weights if name.endswith("weight"))[0]
    del weights[key]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"missing keys: .*{key.split('.')[-2]}"):
        PARTS[part](base)


@pytest.mark.parametrize("part", WITH_WEIGHTS)
def test_a_misshapen_key_is_refused(base: Path, part: str) -> None:
    path = weights_of(base, part)
    weights = load_file(path)
    key = sorted(name for name in weights if weights[name].ndim == 1)[0]
    weights[key] = torch.cat([weights[key], weights[key]])
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError):
        PARTS[part](base)


def test_another_scheduler_is_refused(base: Path) -> None:
    path = base / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({"solver_type": "no such solver"}))
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_scheduler_config(base)


def test_broken_json_is_refused(base: Path) -> None:
    (base / "vae" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_vae(base, ALONE)
