"""What the service's tests share: the bundled model's configuration, a store, a scene."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.store import Store
from deployments.tables import sqlite_url
from tests import scenes
from tests.deployments.archive_files import zip_of_folder
from worldstereo.config import ModelConfig
from worldstereo.models.source import bundled_folder, read_model_config


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    return read_model_config(bundled_folder("worldstereo-tiny") / "worldstereo-memory-dmd")


@pytest.fixture(scope="session")
def kitchen_zip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A reconstruction scene of two trajectories, under one top folder."""
    folder = tmp_path_factory.mktemp("scenes") / "kitchen"
    scenes.make_reconstruction(folder)
    return zip_of_folder(folder, "kitchen/")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(sqlite_url(tmp_path / "data" / "store.sqlite"))
    yield opened
    opened.close()
