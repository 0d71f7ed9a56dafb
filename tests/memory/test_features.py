"""DINOv2 features: the real classes at a tiny size."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

from tests.memory.scenes import random_clip
from worldstereo.errors import CheckpointError
from worldstereo.memory.features import BUNDLED_FEATURES, DinoFeatures


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DINOv2 of two layers, with the published network's preprocessing."""
    path = tmp_path_factory.mktemp("dinov2")
    config = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=56,
        patch_size=14,
    )
    torch.manual_seed(0)
    Dinov2Model(config).save_pretrained(path)
    BitImageProcessorPil(
        size={"shortest_edge": 64},
        crop_size={"height": 56, "width": 56},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(path)
    return path


def test_features_are_the_pooled_output(folder: Path) -> None:
    frame = random_clip("a", 1, (64, 96))[0]
    features = DinoFeatures.from_pretrained(folder, local_files_only=True)(frame)
    # By hand: the shorter side is 64 already, the middle 56 x 56 pixels are taken.
    middle = torch.from_numpy(frame[4:60, 20:76].copy()).permute(2, 0, 1) / 255
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    network = Dinov2Model.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = network(((middle - mean) / deviation)[None]).pooler_output[0]
    assert features.dtype == np.float32
    assert features.shape == (16,)
    np.testing.assert_allclose(features, expected.numpy(), atol=1e-5)


def test_the_same_frame_gets_the_same_features(folder: Path) -> None:
    one, other = random_clip("a", 2, (64, 96))
    features = DinoFeatures.from_pretrained(folder, local_files_only=True)
    first = features(one)
    assert not np.array_equal(features(other), first)
    np.testing.assert_array_equal(features(one), first)


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    features = DinoFeatures.from_pretrained(tmp_path / "none", local_files_only=True)
    with pytest.raises(CheckpointError, match=r"image features cannot be loaded.*hf download"):
        features.load()


def test_a_broken_folder_is_named(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(CheckpointError) as caught:
        DinoFeatures.from_pretrained(tmp_path, local_files_only=True).load()
    assert caught.value.where == str(tmp_path)


def test_the_bundled_network_describes_frames() -> None:
    features = DinoFeatures.from_pretrained("worldstereo-tiny", local_files_only=True)
    assert features.source == str(BUNDLED_FEATURES)
    described = features(random_clip("a", 1, (128, 192))[0])
    assert described.ndim == 1
    assert np.isfinite(described).all()
