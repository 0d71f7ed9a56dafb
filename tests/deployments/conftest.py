"""What the service's tests share: the bundled model's configuration, a store, a scene, the API."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from configs.settings import UploadLimits
from deployments.api import Backend, create_api
from deployments.event_feed import EventFeed
from deployments.folders import SceneFolders
from deployments.offers import Offers
from deployments.store import Store
from deployments.submission import Submitter
from deployments.tables import sqlite_url
from tests import scenes
from tests.deployments.archive_files import zip_of_folder
from tests.deployments.http_api import VARIANT, FakeOrchestrator
from tests.deployments.postgresql import PostgresqlServer
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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    server = PostgresqlServer()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def new_database(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], str]:
    """Makes empty databases of one kind, and says their URL."""
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql")
        return server.new_database
    return lambda: sqlite_url(tmp_path_factory.mktemp("store") / "store.sqlite")


@pytest.fixture
def database_url(new_database: Callable[[], str]) -> str:
    """An empty database, SQLite and PostgreSQL in turn."""
    return new_database()


@pytest.fixture
def each_store(database_url: str) -> Iterator[Store]:
    """A store, in SQLite and PostgreSQL in turn."""
    opened = Store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(sqlite_url(tmp_path / "data" / "store.sqlite"))
    yield opened
    opened.close()


@pytest.fixture
def orchestrator() -> FakeOrchestrator:
    return FakeOrchestrator()


@pytest.fixture
def folders(tmp_path: Path) -> SceneFolders:
    return SceneFolders(tmp_path / "data")


@pytest.fixture
def offers() -> Offers:
    """What the server can do beside generating clips."""
    return Offers(outputs=("points", "colmap", "transforms"))


@pytest.fixture
def backend(
    store: Store,
    folders: SceneFolders,
    orchestrator: FakeOrchestrator,
    tiny_config: ModelConfig,
    offers: Offers,
) -> Backend:
    limits = UploadLimits(max_upload_bytes=2_000_000, max_file_bytes=1_000_000)
    configs = {VARIANT: tiny_config}
    submitter = Submitter(
        store, folders, configs, limits, offers, max_queued_scenes=3, max_validations=1
    )
    feed = EventFeed(store, poll_s=0.01, heartbeat_s=0.2)
    return Backend(
        store,
        folders,
        submitter,
        feed,
        orchestrator,
        orchestrator.wake,
        "/models/worldstereo-tiny",
        configs,
        offers,
    )


@pytest.fixture
def api(backend: Backend) -> FastAPI:
    return create_api(backend)


@pytest.fixture
async def http(api: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(api, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The exit codes with which the process would have ended."""
    codes: list[int] = []
    monkeypatch.setattr("os._exit", codes.append)
    return codes
