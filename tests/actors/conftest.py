"""What the actors' tests share: scenes that were read, and clips prepared from them."""

from pathlib import Path

import pytest

from tests import scenes
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.formats.scene_folder import read_scene
from worldstereo.models.source import bundled_folder, read_model_config
from worldstereo.scene import SceneRun
from worldstereo.types import Clip


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return read_model_config(bundled_folder("worldstereo-tiny") / "worldstereo-memory-dmd")


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reconstruction scene of two clips, the second of which depends on the first."""
    folder: Path = scenes.make_reconstruction(tmp_path_factory.mktemp("scenes") / "kitchen")
    return folder


@pytest.fixture(scope="session")
def clip(kitchen: Path, tiny_config: ModelConfig, tmp_path_factory: pytest.TempPathFactory) -> Clip:
    scene = read_scene(kitchen, scale_map=tiny_config.scale_map, nframe=tiny_config.nframe)
    output = tmp_path_factory.mktemp("prepared")
    run = SceneRun.open(scene, SceneParameters(), tiny_config, output)
    return run.prepare("renders/traj_eloop")
