"""Beyond loopback the API listens only with keys, or where that was said."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from cluster.local import ClusterError, LocalCluster
from cluster.loopback import Listener
from configs.settings import AppArgs, AuthSettings
from deployments import listening
from deployments.key_store import KeyStore
from deployments.tables import store_url
from worldstereo.errors import ParameterError


def arguments(folder: Path, **auth: bool) -> AppArgs:
    return AppArgs(data_dir=folder, auth=AuthSettings(**auth))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "no.such.host.invalid"])
def test_keys_are_needed_beyond_loopback(host: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="--require-keys"):
        listening.check_listening(host, arguments(tmp_path))
    with pytest.raises(ParameterError, match="there is none"):
        listening.check_listening(host, arguments(tmp_path, required=True))
    keys = KeyStore(store_url(tmp_path, None))
    key, _ = keys.create("a", ["read"])
    listening.check_listening(host, arguments(tmp_path, required=True))
    keys.revoke(key.id)
    keys.close()
    with pytest.raises(ParameterError, match="there is none"):
        listening.check_listening(host, arguments(tmp_path, required=True))
    allowed = arguments(tmp_path, allow_unauthenticated=True)
    listening.check_listening(host, allowed)
    assert "send, see and cancel every scene" in listening.opening(host, allowed)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_loopback_needs_none(host: str, tmp_path: Path) -> None:
    listening.check_listening(host, arguments(tmp_path))
    assert not list(tmp_path.iterdir())


def test_serve_deploy_is_held_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listening.check_served_host(arguments(tmp_path))  # no Serve runs
    served = SimpleNamespace(http_config=SimpleNamespace(host="0.0.0.0"))
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(
        "ray.serve.context._get_global_client", lambda raise_if_no_controller_running: served
    )
    with pytest.raises(ParameterError, match=r"http_options\.host"):
        listening.check_served_host(arguments(tmp_path))
    listening.check_served_host(arguments(tmp_path, required=True))
    listening.check_served_host(arguments(tmp_path, allow_unauthenticated=True))
    served.http_config.host = "127.0.0.1"
    listening.check_served_host(arguments(tmp_path))


def test_only_the_api_may_be_open(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = LocalCluster(host="0.0.0.0", port=8123, open_http=True)
    assert cluster.url == "http://127.0.0.1:8123"
    found = [Listener("0.0.0.0", 8123, 1), Listener("127.0.0.1", 6379, 1)]
    monkeypatch.setattr("cluster.local.listeners", lambda pids: found)
    cluster._refuse_open_ports()
    found.append(Listener("0.0.0.0", 6380, 1))
    with pytest.raises(ClusterError, match=r"0\.0\.0\.0:6380$"):
        cluster._refuse_open_ports()
    with pytest.raises(ClusterError, match=r"0\.0\.0\.0:8123"):
        LocalCluster(port=8123)._refuse_open_ports()
