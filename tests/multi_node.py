"""A Ray cluster of several nodes on this machine, for tests: nodes come, go and die on command.

``with multi_node(num_cpus=0) as cluster`` starts the head in a child process, on loopback and with
a token, as the embedded cluster has it; the test's own process never becomes a part of Ray. The
driver is connected while it deploys, and at no other time: whatever dies, the driver does not.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from cluster.processes import Process, descendants, end
from configs.settings import AppArgs

ROOT = Path(__file__).parent.parent
PATIENCE_S = 150.0


@dataclass(frozen=True)
class Node:
    """One node: its name, and the process that all its other processes are below."""

    name: str
    raylet: int


class MultiNode:
    """The cluster, as the test sees it. Make one by ``multi_node``."""

    def __init__(self, child: int, pipe: Connection, folder: Path, port: int) -> None:
        self._child = child
        self._pipe = pipe
        self.run_folder = folder
        self.port = port
        self.nodes: dict[str, Node] = {}

    @property
    def url(self) -> str:
        """Root of the HTTP API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def processes(self) -> list[int]:
        """Ids of all living processes of the cluster."""
        return self.below(self._child)

    @property
    def raylets(self) -> list[int]:
        """One process of each node, of those that an autoscaler started as well."""
        return [pid for pid in self.processes if "/raylet/raylet\0" in _title(pid)]

    def titled(self, title: str, node: Node | None = None) -> list[int]:
        """Ids of the processes of a node, or of all nodes, whose title starts with this."""
        pids = self.below(node.raylet) if node else self.processes
        return [pid for pid in pids if _title(pid).startswith(title)]

    def below(self, pid: int) -> list[int]:
        """Ids of the living processes below this one, such as a raylet."""
        return [process.pid for process in descendants(pid)]

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Look again and again; AssertionError when it does not come."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"{what}: not after {PATIENCE_S:g} s"
            time.sleep(0.2)

    def add_node(self, **resources: Any) -> Node:
        """Start a node: num_cpus, num_gpus, resources; it has joined when this returns."""
        node = Node(*self._ask("add_node", resources))
        self.nodes[node.name] = node
        return node

    def remove_node(self, node: Node, *, allow_graceful: bool = False) -> None:
        """End a node's processes: at once, or asked to first."""
        below = descendants(node.raylet)
        self._ask("remove_node", node.name, allow_graceful)
        end(below, grace_s=5.0)  # workers see for themselves that their node is gone, but later
        del self.nodes[node.name]

    def kill_gcs(self) -> None:
        """Kill the head's control service; where it keeps nothing on disk, all is lost with it."""
        self._ask("kill_gcs")

    def start_gcs(self) -> None:
        """Start the control service again, at the same address."""
        self._ask("start_gcs")

    def deploy(self, args: AppArgs) -> None:
        """Put the application in place of whatever runs, and wait until all its parts run."""
        self._ask("deploy", args)

    def deploy_config(self, config: dict[str, Any]) -> None:
        """The same by a Serve configuration, as ``serve deploy`` and KubeRay do it."""
        self._ask("deploy_config", config)

    def running(self, deployment: str) -> int:
        """How many replicas of a deployment Serve gives requests to."""
        count: int = self._ask("running", deployment)
        return count

    def _ask(self, command: str, *arguments: Any) -> Any:
        self._pipe.send((command, arguments))
        assert self._pipe.poll(PATIENCE_S), f"{command} takes more than {PATIENCE_S:g} s"
        error, answer = self._pipe.recv()
        assert error is None, f"{command}: {error}"
        return answer


@contextmanager
def multi_node(
    *,
    gcs_folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **head_resources: Any,
) -> Iterator[MultiNode]:
    """A cluster for the block.

    Args:
        gcs_folder: where the control service keeps its tables (RocksDB), so that it can be started
            again; None: in memory.
        environment: further variables of all of Ray's processes.
        head_resources: of the head: num_cpus, num_gpus, resources.
    """
    folder = Path(tempfile.mkdtemp(prefix="ws-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ours, theirs = Pipe()
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.multi_node", str(theirs.fileno()), str(folder), str(port)],
        env=_environment(folder, gcs_folder) | dict(environment or {}),
        cwd=ROOT,
        pass_fds=[theirs.fileno()],
    )
    theirs.close()
    cluster = MultiNode(child.pid, ours, folder, port)
    left: list[Process] = []
    try:
        cluster.add_node(**head_resources)
        yield cluster
    finally:
        left += descendants(child.pid)
        ours.close()
        child.kill()
        end(left, grace_s=5.0)
        child.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:  # ended meanwhile
        return ""


def _environment(folder: Path, gcs_folder: Path | None) -> dict[str, str]:
    """What the child and all of Ray's processes start with; as cluster/local.py has it."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    own = ("RAY_ADDRESS", "RAY_AUTH_TOKEN")
    found = {name: value for name, value in os.environ.items() if name not in own}
    path = [str(ROOT), str(ROOT / "client"), found.get("PYTHONPATH", "")]
    found |= {
        "PYTHONPATH": os.pathsep.join(path).rstrip(os.pathsep),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listen on loopback only
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    }
    if gcs_folder is not None:
        found |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(gcs_folder)}
    return found


class _Commands:
    """What the child can be asked; a method each."""

    def __init__(self, folder: Path, port: int) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster()
        self._folder = folder
        self._port = port
        self._nodes: dict[str, Any] = {}

    def add_node(self, resources: dict[str, Any]) -> tuple[str, int]:
        node = self._cluster.add_node(
            node_ip_address="127.0.0.1",
            temp_dir=str(self._folder / "ray"),
            include_dashboard=False,
            **resources,
        )
        name = f"node {len(self._nodes)}"
        self._nodes[name] = node
        return name, node.all_processes["raylet"][0].process.pid

    def remove_node(self, name: str, allow_graceful: bool) -> None:
        self._cluster.remove_node(self._nodes[name], allow_graceful=allow_graceful)

    def kill_gcs(self) -> None:
        self._cluster.head_node.kill_gcs_server(check_alive=False)

    def start_gcs(self) -> None:
        self._cluster.head_node.start_gcs_server()

    def deploy(self, args: AppArgs) -> None:
        from ray import serve

        from deployments.app import build_app

        with self._connected():
            serve.run(build_app(args), name="worldstereo", route_prefix="/")

    def deploy_config(self, config: dict[str, Any]) -> None:
        import ray
        from ray import serve
        from ray.serve.context import _get_global_client
        from ray.serve.schema import ServeDeploySchema

        with self._connected():
            controller = _get_global_client()._controller
            ray.get(controller.apply_config.remote(ServeDeploySchema.model_validate(config)))
            deadline = time.monotonic() + PATIENCE_S
            while (found := serve.status().applications)["worldstereo"].status != "RUNNING":
                assert found["worldstereo"].status == "DEPLOYING", found["worldstereo"]
                assert time.monotonic() < deadline, found["worldstereo"]
                time.sleep(0.2)

    def running(self, deployment: str) -> int:
        from ray import serve

        with self._connected():
            application = serve.status().applications["worldstereo"]
            return application.deployments[deployment].replica_states.get("RUNNING", 0)

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Connected to Ray, with Serve started, for the block."""
        import ray
        from ray import serve
        from ray.serve import context

        ray.init(
            address=self._cluster.address,
            namespace="worldstereo",
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env={"worker_process_setup_hook": "cluster.loopback.keep_replicas_on_loopback"},
        )
        try:
            serve.start(
                proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": self._port}
            )
            yield
        finally:
            context._set_global_client(None)
            ray.shutdown()


def _obey(pipe: Connection, commands: _Commands) -> None:
    """The child: does what it is asked until nobody asks any more."""
    while True:
        try:
            command, arguments = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send((None, getattr(commands, command)(*arguments)))
        except Exception as error:  # noqa: BLE001 - told to whoever asked
            pipe.send((f"{type(error).__name__}: {error}", None))


if __name__ == "__main__":
    _obey(Connection(int(sys.argv[1])), _Commands(Path(sys.argv[2]), int(sys.argv[3])))
    os._exit(0)  # whoever asked ends Ray's processes
