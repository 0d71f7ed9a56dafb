"""All stages in a few seconds each, and the product loads what they leave."""

from pathlib import Path

import pytest
import torch

from tests.training.conftest import SIZE
from training import autoencoder, distil, export, generator
from training.all import commands
from training.architecture import MINIATURE
from training.autoencoder import trained_vae
from training.clips import Chooser, Clips
from training.curves import read_curves
from training.run import averaged_weights
from training.seed_tiny import files_of
from worldstereo import WorldStereo
from worldstereo.config import VARIANTS, Variant

MINUTES = 0.04


@pytest.fixture(scope="module")
def runs(worlds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    small = {"device": "cpu", "architecture": MINIATURE, "batch": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generator, "VALIDATED", 1)
        patch.setattr(generator, "VALIDATION_STEPS", 2)
        patch.setattr(autoencoder, "COUNTED", 64)
        autoencoder.train(folder, worlds, MINUTES, **small)  # type: ignore[arg-type]
        for stage in ("memory", "camera"):
            generator.train(folder, worlds, stage, MINUTES, compiled=False, **small)  # type: ignore[arg-type]
        distil.train(folder, worlds, MINUTES, compiled=False, **small)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def model(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    export.export(runs, folder, MINIATURE)
    return folder


def test_each_stage_leaves_its_curve(runs: Path) -> None:
    curves = read_curves(runs)
    assert list(curves) == ["vae", "memory", "camera", "dmd"]
    for stage, lines in curves.items():
        assert any("loss" in line for line in lines), stage
        # How high depends on the machine's speed: a VAE that hardly learned decodes all alike.
        assert lines[-1]["validation_psnr"] > 5, stage


def test_later_stages_begin_with_the_earlier_ones_weights(runs: Path) -> None:
    weights = {stage: averaged_weights(runs / stage) for stage in ("camera", "memory", "dmd")}
    name = "blocks.1.ffn.net.0.proj.weight"
    size = weights["camera"][name].std()
    for before, after in (("memory", "camera"), ("memory", "dmd")):
        moved = (weights[before][name] - weights[after][name]).abs().max()
        assert 0 < moved < 3 * size, (before, after)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_product_generates_what_training_does(
    runs: Path, model: Path, worlds: Path, variant: Variant
) -> None:
    """The exported model's velocity is the trained one's, up to bfloat16 weights."""
    loaded = WorldStereo.from_pretrained(
        str(model), subfolder=variant, device="cpu", local_files_only=True
    )
    stage = export.STAGES[variant]
    trained = generator.new_transformer(MINIATURE, stage).eval()
    generator.load_averaged(trained, runs / stage)
    _, held, _ = generator.load_scenes(runs, worlds, MINIATURE, "cpu")
    references = 0 if stage == "camera" else 2
    clips = Clips(held, trained).batch(Chooser(held, 0).choose(1, references))
    noisy, sigma = torch.randn_like(clips["latents"]), torch.tensor([0.5])
    with torch.no_grad():
        wanted = generator.velocity(trained, clips, noisy, sigma)
        found = generator.velocity(loaded.transformer, clips, noisy, sigma)
    assert wanted.abs().max() > 0
    assert (found - wanted).norm() < 0.03 * wanted.norm() + 1e-3
    assert loaded.vae.vae.config.latents_std == trained_vae(runs, MINIATURE).config.latents_std
    assert SIZE[0] // 8 == noisy.shape[-2]


def test_the_camera_variant_brings_no_backbone(model: Path) -> None:
    sizes = {path.relative_to(model).as_posix(): path.stat().st_size for path in files_of(model)}
    own = sizes["worldstereo-camera/model.safetensors"]
    assert own < sizes["worldstereo-memory/model.safetensors"] / 2
    assert sizes["worldstereo-memory/model.safetensors"] == pytest.approx(
        sizes["worldstereo-memory-dmd/model.safetensors"]
    )


def test_one_command_runs_the_stages_in_order(tmp_path: Path) -> None:
    names = [" ".join(command[:1] + command[3:]) for command in commands(tmp_path)]
    assert [name.removeprefix("training.") for name in names] == [
        "worlds",
        "autoencoder",
        "generator memory",
        "generator camera",
        "distil",
        "export",
        "curves",
    ]
