"""Hosts with a network between them, for tests: each is a network namespace of this machine.

``with network(("head", "one", "two")) as hosts`` makes a bridge and, for each host, a namespace
with an address of its own, and removes all of it at the end. Ray runs in them by ``ray start``, as
on real machines; the test's own process reaches them through the bridge. Files are shared. It takes
root and iproute2.
"""

from __future__ import annotations

import os
import pickle
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from configs.settings import AppArgs

ROOT = Path(__file__).parent.parent
SUBNET = "10.213.77"  # in use between the namespaces and the bridge alone
GCS_PORT, HTTP_PORT = 6379, 8000
START_S = 120.0
OBJECT_STORE_BYTES = 100_000_000


def lacking() -> str | None:
    """What keeps this machine from having such hosts, with the line to type; None: nothing."""
    if shutil.which("ip") is None:
        return "no iproute2: sudo apt-get install iproute2"
    if os.geteuid() != 0:
        return "network namespaces take root: sudo .venv/bin/python -m pytest -m recovery"
    return None


@dataclass(frozen=True)
class Host:
    """One host: its name, its namespace, the bridge's end of its cable, and its address."""

    name: str
    namespace: str
    cable: str
    address: str


class Hosts:
    """The hosts, with Ray on those that were started. Make one by ``network``."""

    def __init__(
        self, hosts: Mapping[str, Host], folder: Path, variables: Mapping[str, str]
    ) -> None:
        self.hosts = hosts
        self._folder = folder
        token = folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self._environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "client")]),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
            **variables,
        }

    @property
    def url(self) -> str:
        """Root of the HTTP API, which the head has."""
        return f"http://{self.hosts['head'].address}:{HTTP_PORT}"

    @property
    def processes(self) -> list[int]:
        """Ids of all living processes on the hosts."""
        return [pid for host in self.hosts.values() for pid in self.on(host)]

    def on(self, host: Host, title: str = "") -> list[int]:
        """Ids of the processes on a host whose title starts with this."""
        found = _ip("netns", "pids", host.namespace).split()
        return [pid for pid in map(int, found) if _title(pid).startswith(title)]

    def start_ray(self, name: str, num_cpus: int) -> None:
        """Start Ray on a host; all but the head join the head."""
        host, head = self.hosts[name], self.hosts["head"]
        place = ["--head", f"--port={GCS_PORT}", "--include-dashboard=false"]
        place += [f"--temp-dir={self._folder / 'ray'}"]
        if host != head:
            place = [f"--address={head.address}:{GCS_PORT}"]
        options = [f"--node-ip-address={host.address}", f"--num-cpus={num_cpus}", "--num-gpus=0"]
        options += [f"--object-store-memory={OBJECT_STORE_BYTES}", "--disable-usage-stats"]
        self._run(host, "ray.scripts.scripts", "start", *place, *options)

    def begin_to_deploy(self, args: AppArgs) -> subprocess.Popen[bytes]:
        """Put the application in place; the process ends when all its parts run."""
        file = self._folder / "args.pickle"
        file.write_bytes(pickle.dumps(args))
        head = self.hosts["head"]
        return subprocess.Popen(
            [*_inside(head), "-m", "tests.network_hosts", str(file), head.address],
            env=self._environment,
            cwd=ROOT,
        )

    def cut(self, host: Host) -> None:
        """Pull a host's cable."""
        _ip("link", "set", host.cable, "down")

    def join(self, host: Host) -> None:
        """Put it back."""
        _ip("link", "set", host.cable, "up")

    def _run(self, host: Host, module: str, *arguments: str) -> None:
        run = subprocess.run(
            [*_inside(host), "-m", module, *arguments],
            env=self._environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )
        assert run.returncode == 0, run.stdout + run.stderr


@contextmanager
def network(names: Sequence[str], variables: Mapping[str, str]) -> Iterator[Hosts]:
    """Hosts with these names for the block; the first is called ``head``.

    Args:
        names: of the hosts.
        variables: further environment of all of Ray's processes.
    """
    mark = secrets.token_hex(2)  # names of interfaces are short
    bridge = f"wsb{mark}"
    hosts = {
        name: Host(name, f"ws{mark}-{name}", f"wsc{mark}{index}", f"{SUBNET}.{index}")
        for index, name in enumerate(names, 1)
    }
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    made = Hosts(hosts, folder, variables)
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("address", "add", f"{SUBNET}.254/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for host in hosts.values():
            _plug_in(host, bridge)
        yield made
    finally:
        for host in hosts.values():
            if Path("/run/netns", host.namespace).exists():
                _end_all(made, host)
                _ip("netns", "delete", host.namespace)  # its cable goes with it
        if Path("/sys/class/net", bridge).exists():
            _ip("link", "delete", bridge)
        shutil.rmtree(folder, ignore_errors=True)


def _plug_in(host: Host, bridge: str) -> None:
    _ip("netns", "add", host.namespace)
    _ip("link", "add", host.cable, "type", "veth", "peer", "eth0", "netns", host.namespace)
    _ip("link", "set", host.cable, "master", bridge, "up")
    _ip("-n", host.namespace, "address", "add", f"{host.address}/24", "dev", "eth0")
    for device in ("lo", "eth0"):
        _ip("-n", host.namespace, "link", "set", device, "up")


def _end_all(hosts: Hosts, host: Host) -> None:
    """Kill what runs on a host, and what that starts meanwhile."""
    while pids := hosts.on(host):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _inside(host: Host) -> list[str]:
    return ["ip", "netns", "exec", host.namespace, sys.executable]


def _ip(*arguments: str) -> str:
    run = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"ip {' '.join(arguments)}: {run.stderr}"
    return run.stdout


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def _deploy(args: AppArgs, address: str) -> None:
    """Run on the head."""
    import ray
    from ray import serve

    from deployments.app import build_app

    ray.init(address=f"{address}:{GCS_PORT}", namespace="worldstereo", log_to_driver=False)
    serve.start(proxy_location="HeadOnly", http_options={"host": address, "port": HTTP_PORT})
    serve.run(build_app(args), name="worldstereo", route_prefix="/")


if __name__ == "__main__":
    _deploy(pickle.loads(Path(sys.argv[1]).read_bytes()), sys.argv[2])
