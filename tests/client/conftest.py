"""A stub server for each test, and clients that do not wait long between tries."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from worldstereo_client import AsyncClient, Client, RetryPolicy

from tests.client.stub_server import Stub, build_app, serving

QUICK = RetryPolicy(attempts=4, first_delay_s=0.01, longest_delay_s=0.05)


@pytest.fixture
def stub() -> Iterator[Stub]:
    stub = Stub()
    with serving(build_app(stub)) as stub.url:
        yield stub


@pytest.fixture
def client(stub: Stub) -> Iterator[Client]:
    with Client(stub.url, retries=QUICK) as client:
        yield client


@pytest_asyncio.fixture
async def async_client(stub: Stub) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(stub.url, retries=QUICK) as client:
        yield client


@pytest.fixture
def scene_folder(tmp_path: Path) -> Path:
    """A folder with the outline of a scene: enough for the stub."""
    folder = tmp_path / "kitchen"
    (folder / "renders" / "traj_up").mkdir(parents=True)
    (folder / "image.png").write_bytes(b"image")
    (folder / "prompt.json").write_text('{"prompt": "a kitchen"}')
    (folder / "renders" / "traj_up" / "camera.json").write_text("{}")
    return folder
