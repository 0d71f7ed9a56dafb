"""The model with seeded weights is the same every time it is written."""

import hashlib
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training import seed_tiny
from worldstereo.config import VARIANTS

BASE = Path("base") / "transformer" / "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "model"
    seed_tiny.write_model(folder)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in seed_tiny.files_of(folder)
    }


def test_the_command_writes_the_same_bytes(
    written: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["seed_tiny", str(tmp_path / "again")])
    seed_tiny.main()
    assert hashes(tmp_path / "again") == hashes(written)
    assert f"bytes in {tmp_path / 'again'}\n" in capsys.readouterr().out


def test_the_command_writes_over_nothing_that_was_not_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["seed_tiny"])
    with pytest.raises(SystemExit):
        seed_tiny.main()
    assert "folder" in capsys.readouterr().err


def test_frozen_networks_are_the_bundled_ones(written: Path) -> None:
    """Nothing trains the encoders: those of the bundled model are what the command writes."""
    parts = ("text_encoder", "tokenizer", "image_encoder", "image_processor", "scheduler")
    folders = (*(f"base/{part}" for part in parts), "dinov2")
    for folder in folders:
        assert hashes(written / folder) == hashes(seed_tiny.BUNDLED / folder), folder


def test_the_whole_is_at_most_4_mb(written: Path) -> None:
    assert sum(path.stat().st_size for path in seed_tiny.files_of(written)) <= 4_000_000


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_differ_and_leave_most_of_the_backbone_to_the_base(
    written: Path, variant: str
) -> None:
    weights = load_file(written / variant / "model.safetensors")
    base = load_file(written / BASE)
    assert set(weights) & set(base) == set(seed_tiny.OVERLAID)
    assert not torch.equal(weights["proj_out.weight"], base["proj_out.weight"])
    own = {name for name in weights if name.startswith("controlnet.")}
    rest = set(weights) - own - set(seed_tiny.OVERLAID)
    memory = {f"camera_embedding.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    expected = set() if variant == "worldstereo-camera" else memory | {"ref_index_embedding.weight"}
    assert rest == expected


def test_weights_keep_their_precision(written: Path) -> None:
    for name, tensor in load_file(written / BASE).items():
        precise = tensor.ndim == 1 or any(part in name for part in seed_tiny.PRECISE)
        assert tensor.dtype == (torch.float32 if precise else torch.bfloat16), name


def test_a_weight_depends_on_its_name_and_shape_alone() -> None:
    first = seed_tiny.seeded("a.weight", (64, 64))
    assert torch.equal(first, seed_tiny.seeded("a.weight", (64, 64)))
    assert not torch.equal(first, seed_tiny.seeded("b.weight", (64, 64)))
    assert float(first.float().std()) == pytest.approx(1 / 8, rel=0.1)
    assert float(seed_tiny.seeded("norm.weight", (512,)).mean()) == pytest.approx(1, abs=0.05)
    assert float(seed_tiny.seeded("norm.bias", (512,)).mean()) == pytest.approx(0, abs=0.05)
