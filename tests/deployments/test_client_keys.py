"""The client and the command line with a key, against a server that asks for one."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result
from worldstereo_client import AsyncClient, Client, RetryPolicy, cli, errors
from worldstereo_client.exit_codes import ExitCode

from deployments.api import Backend, create_api
from deployments.key_store import KeyStore
from tests.client.stub_server import serving
from tests.scenes import make_reconstruction

ONCE = RetryPolicy(attempts=1)


@pytest.fixture(autouse=True)
def no_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLDSTEREO_API_KEY", raising=False)


@pytest.fixture
def keys(backend: Backend) -> Iterator[KeyStore]:
    opened = KeyStore(str(backend.store._engine.url))
    yield opened
    opened.close()


@pytest.fixture
def url(backend: Backend, keys: KeyStore) -> Iterator[str]:
    with serving(create_api(dataclasses.replace(backend, keys=keys))) as address:
        yield address


def test_the_client_takes_a_key_and_raises_what_it_lacks(
    url: str, keys: KeyStore, tmp_path: Path
) -> None:
    room = make_reconstruction(tmp_path / "room", ("traj_up",), size=(32, 48))
    _, reader = keys.create("reader", ["read"], requests_per_minute=2)
    _, both = keys.create("both", ["read", "write"])
    with Client(url, retries=ONCE) as client:
        assert client.health().status == "ok"
        with pytest.raises(errors.AuthenticationError) as missing:
            client.models()
        assert missing.value.status == 401
    with (
        Client(url, api_key=both + "x", retries=ONCE) as client,
        pytest.raises(errors.AuthenticationError),
    ):
        client.models()
    with Client(url, api_key=reader, retries=ONCE) as client:
        with pytest.raises(errors.PermissionDenied):
            client.scenes.submit(room)
        client.models()
        with pytest.raises(errors.RateLimited):
            client.models()
    with Client(url, api_key=both, retries=ONCE) as client:
        job = client.scenes.submit(room)
        assert [row.id for row in client.scenes.list()] == [job.id]
        with pytest.raises(errors.PermissionDenied, match="priority"):
            client.scenes.submit(room, priority=1)


async def test_the_asynchronous_client_takes_a_key(url: str, keys: KeyStore) -> None:
    _, text = keys.create("a", ["read"])
    async with AsyncClient(url, api_key=text, retries=ONCE) as client:
        assert await client.models()


def test_a_key_of_the_environment_counts_where_none_is_given(
    url: str, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = keys.create("a", ["read"])
    monkeypatch.setenv("WORLDSTEREO_API_KEY", f" {text}\n")
    with Client(url, retries=ONCE) as client:
        client.models()
    with Client(url, api_key="", retries=ONCE) as client, pytest.raises(errors.AuthenticationError):
        client.models()


@pytest.mark.parametrize("key", ["ws_ä", "ws_a\r\nX-Evil: 1", "two words"])
def test_a_key_that_is_no_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(errors.ParameterError) as caught:
        Client(api_key=key)
    assert key not in str(caught.value)


def call(*arguments: str) -> Result:
    return CliRunner().invoke(cli.build_app(), list(arguments))


def test_the_command_line_takes_a_key(
    url: str, keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, text = keys.create("a", ["read"])
    refused = call("models", "--url", url)
    assert refused.exit_code == ExitCode.BAD_INPUT
    assert "--api-key" in refused.stderr
    assert call("models", "--url", url, "--api-key", text).exit_code == 0
    monkeypatch.setenv("WORLDSTEREO_API_KEY", text)
    assert call("status", "--url", url).exit_code == 0
    # Neither a help text nor an error shows the key of the environment.
    assert text not in call("models", "--help").output
