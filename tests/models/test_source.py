"""Where models are found, without any network: bundled, folders, and the Hub's local cache."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.models.checkpoints import Checkpoint, is_backbone, write_shards
from tests.models.tiny import BACKBONE, CONFIG, CONTROLNET, MEMORY
from worldstereo.config import ModelConfig
from worldstereo.errors import CheckpointError
from worldstereo.models.source import (
    bundled_folder,
    read_backbone_config,
    read_model_config,
    resolve_base,
    resolve_folder,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/model"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's local cache, empty."""
    folder = tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    return folder


def cache_snapshot(cache: Path, repository: str, source: Path) -> Path:
    """Lay a folder into a Hub cache as huggingface_hub does after a download."""
    owner = cache / f"models--{repository.replace('/', '--')}"
    (owner / "refs").mkdir(parents=True)
    (owner / "refs" / "main").write_text(COMMIT)
    snapshot = owner / "snapshots" / COMMIT
    shutil.copytree(source, snapshot)
    return snapshot


def test_a_folder_is_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / MEMORY).mkdir(parents=True)
    assert resolve_folder(tmp_path / "models", subfolder=MEMORY) == tmp_path / "models"
    monkeypatch.chdir(tmp_path)
    assert resolve_folder("models", subfolder=MEMORY) == tmp_path / "models"


def test_the_bundled_model_is_found_by_name() -> None:
    found = resolve_folder("worldstereo-tiny", subfolder=MEMORY)
    assert found == bundled_folder("worldstereo-tiny")
    config = read_model_config(found / MEMORY)
    base = resolve_base(config, found / MEMORY)
    assert read_backbone_config(base / "transformer").image_dim > 0


def test_a_missing_subfolder_is_named(tmp_path: Path) -> None:
    (tmp_path / "worldstereo-camera").mkdir()
    with pytest.raises(CheckpointError) as caught:
        resolve_folder(tmp_path, subfolder=MEMORY)
    assert MEMORY in caught.value.what
    assert caught.value.where == str(tmp_path)
    assert caught.value.got == "folders worldstereo-camera"


@pytest.mark.parametrize("name", ["/no/such/folder", "./models", "a/b/c", "", "owner/na me"])
def test_what_is_neither_folder_nor_repository(name: str) -> None:
    with pytest.raises(CheckpointError, match="no such model folder"):
        resolve_folder(name, subfolder=MEMORY)


def test_offline_without_a_copy_tells_what_to_type(cache: Path) -> None:
    cache.mkdir()
    with pytest.raises(CheckpointError) as caught:
        resolve_folder(REPOSITORY, subfolder=MEMORY, local_files_only=True)
    assert "on this machine" in caught.value.what
    assert caught.value.where == REPOSITORY
    assert f'hf download {REPOSITORY} --include "{MEMORY}/*"' in str(caught.value)


def test_offline_with_a_copy_needs_no_network(tmp_path: Path, cache: Path) -> None:
    Checkpoint(tmp_path / "source", MEMORY)
    snapshot = cache_snapshot(cache, REPOSITORY, tmp_path / "source")
    assert resolve_folder(REPOSITORY, subfolder=MEMORY, local_files_only=True) == snapshot
    with pytest.raises(CheckpointError, match="worldstereo-camera") as caught:
        resolve_folder(REPOSITORY, subfolder="worldstereo-camera", local_files_only=True)
    assert "hf download" in str(caught.value.fix)


def test_the_base_lies_beside_the_variant_or_elsewhere(tmp_path: Path) -> None:
    made = Checkpoint(tmp_path, MEMORY)
    parts = ["transformer"]
    assert resolve_base(made.config, made.folder, subfolders=parts) == tmp_path / "base"
    absolute = made.config.model_copy(update={"base_model": str(tmp_path / "base")})
    elsewhere = tmp_path / "far" / MEMORY
    assert resolve_base(absolute, elsewhere, subfolders=parts) == tmp_path / "base"
    with pytest.raises(CheckpointError, match="no folder vae, text_encoder, tokenizer and 3 more"):
        resolve_base(made.config, made.folder)


def test_the_base_may_be_a_repository(tmp_path: Path, cache: Path) -> None:
    made = Checkpoint(tmp_path / "source", MEMORY)
    snapshot = cache_snapshot(cache, "wan/base", tmp_path / "source" / "base")
    config = made.config.model_copy(update={"base_model": "wan/base"})
    parts = ["transformer"]
    found = resolve_base(config, made.folder, subfolders=parts, local_files_only=True)
    assert found == snapshot
    absent = made.config.model_copy(update={"base_model": "wan/other"})
    with pytest.raises(CheckpointError) as caught:
        resolve_base(absent, made.folder, subfolders=parts, local_files_only=True)
    assert caught.value.where == "wan/other"


@pytest.mark.parametrize("complete", [True, False])
def test_base_weights_are_fetched_only_if_the_variant_lacks_some(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, complete: bool
) -> None:
    made = Checkpoint(tmp_path / "source", MEMORY)
    base = {name: value for name, value in made.weights.items() if is_backbone(name)}
    extra = {"blocks.0.attn2.norm_added_q.weight": torch.ones(24)}
    name = "diffusion_pytorch_model.safetensors"
    write_shards(made.transformer, name, base | extra, 2)
    if not complete:
        made.write_variant({k: v for k, v in made.weights.items() if k != "proj_out.bias"})
    snapshot = cache_snapshot(cache, "wan/base", tmp_path / "source" / "base")
    wanted: list[list[str]] = []

    def record(repository: str, **arguments: object) -> str:
        patterns = arguments["allow_patterns"]
        assert isinstance(patterns, list)
        wanted.append(patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", record)
    config = made.config.model_copy(update={"base_model": "wan/base"})
    resolve_base(config, made.folder, subfolders=["transformer"])
    weights = "transformer/*.json" if complete else "transformer/*"
    assert wanted == [["transformer/*.json"], [weights]]


def test_of_a_repository_the_configuration_alone_can_be_fetched(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Checkpoint(tmp_path / "hub", MEMORY)
    snapshot = cache_snapshot(cache, REPOSITORY, made.folder.parent)
    wanted: list[list[str]] = []

    def record(repository: str, *, allow_patterns: list[str], **options: object) -> str:
        wanted.append(allow_patterns)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", record)
    root = resolve_folder(REPOSITORY, subfolder=MEMORY, files="config.json")
    assert read_model_config(root / MEMORY) == made.config
    assert wanted == [[f"{MEMORY}/config.json"]]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (None, ["missing", "config.json"]),
        ("{", ["is no JSON"]),
        ("[1]", ["no JSON object", "list"]),
        ("{}", ["base_model, controlnet_cfg", "got nothing"]),
        ('{"nframe": 1}', ["nframe", "base_model"]),
    ],
)
def test_a_configuration_that_cannot_be_read(
    tmp_path: Path, content: str | None, parts: list[str]
) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError) as caught:
        read_model_config(tmp_path)
    assert caught.value.where == str(tmp_path / "config.json")
    assert all(part in str(caught.value) for part in parts), str(caught.value)


def test_a_wrong_field_is_shown_with_what_is_allowed(tmp_path: Path) -> None:
    values = CONFIG | {"controlnet_cfg": CONTROLNET | {"num_heads": 0}}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError) as caught:
        read_model_config(tmp_path)
    assert "controlnet_cfg.num_heads" in caught.value.what
    assert caught.value.got == "0"
    assert "greater than 0" in str(caught.value.allowed)


def test_fields_of_other_programs_are_ignored(tmp_path: Path) -> None:
    values = CONFIG | {"lr": 1e-5, "scale_map": [[8, 8]]}
    (tmp_path / "config.json").write_text(json.dumps(values))
    config = read_model_config(tmp_path)
    assert isinstance(config, ModelConfig)
    assert config.scale_map == ((8, 8),)
    (tmp_path / "config.json").write_text(json.dumps(BACKBONE | {"add_img_emb": True}))
    assert read_backbone_config(tmp_path).width == 24


def test_reading_a_configuration_needs_no_torch() -> None:
    code = "import sys, worldstereo.models.source; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
