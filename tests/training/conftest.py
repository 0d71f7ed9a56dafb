"""Two small scenes, and what is made of them with untrained networks."""

from pathlib import Path

import pytest
import torch

from training.architecture import MINIATURE
from training.autoencoder import new_vae
from training.clips import Scenes, encode_scenes
from training.worlds import VALIDATION, Encoders, TrainingScene, make_scene, scene_file
from worldstereo.sampling.vae import KeyframeVAE

SIZE = (64, 96)
SEED = 3


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene to train on, and one to validate on."""
    folder = tmp_path_factory.mktemp("worlds")
    encoders = Encoders()
    for seed in (SEED, VALIDATION):
        make_scene(seed, size=SIZE, encoders=encoders).save(scene_file(folder, seed))
    return folder


@pytest.fixture(scope="session")
def scene(worlds: Path) -> TrainingScene:
    return TrainingScene.load(scene_file(worlds, SEED))


@pytest.fixture(scope="session")
def vae() -> KeyframeVAE:
    return KeyframeVAE(new_vae(MINIATURE).eval(), frames_per_call=32)


@pytest.fixture(scope="session")
def scenes(worlds: Path, vae: KeyframeVAE) -> Scenes:
    with torch.random.fork_rng():
        return Scenes(encode_scenes(worlds, vae, "blurry", validation=False), "cpu")
