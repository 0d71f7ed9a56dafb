"""The embedded cluster: Ray and Ray Serve in child processes of this one, on loopback only.

Owns starting, guarding and ending them. What is deployed is the caller's: this package knows no
deployment. Everything the cluster writes (sockets, logs, the token) lies in a private run folder
that goes with it.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from cluster.loopback import Listener, is_loopback_host, listeners
from cluster.processes import Process, descendants, end
from worldstereo.errors import ParameterError

if TYPE_CHECKING:
    from ray.serve import Application

APPLICATION = "worldstereo"
NAMESPACE = "worldstereo"


class ClusterError(RuntimeError):
    """The embedded cluster did not start, is not safe, or did not take the application."""


class LocalCluster:
    """A Ray cluster with Serve on this machine, for as long as the ``with`` block runs.

    One process can hold one at a time. Ray's own ports and the HTTP port listen on loopback
    only, which is checked after the start; Ray asks for a token that is made for this run and
    is written nowhere but to the run folder.

    Args:
        num_cpus: logical CPUs that Ray may place work on; None: as many as the machine has.
            They are a book-keeping unit: ``deployments.app.required_resources`` tells what an
            application needs.
        num_gpus: the same for GPUs; None: as many as Ray finds.
        port: of the HTTP API; 0 takes a free one.
        host: address of the HTTP API; anything but loopback is refused without ``open_http``.
        open_http: the caller has seen to it that other machines may reach the HTTP API, and
            nothing else of the cluster.
        object_store_memory_bytes: None leaves Ray's choice (a share of the memory).
        run_folder: where sockets and logs go; None: a private temporary folder that is removed
            at the end. Keep its path short (Unix sockets), at most 40 characters.

    Raises:
        ParameterError: ``host`` is not loopback and ``open_http`` not set, or ``run_folder`` is
            too long.
        ClusterError: Ray is already running in this process, did not start, or listens on an
            address that other machines reach; the port is taken.

    Example::

        with LocalCluster(num_cpus=4, port=0) as cluster:
            cluster.deploy(build_app(args))
            print(cluster.url)
    """

    # Runs in each worker process before anything else, by its import path.
    worker_setup_hook = "cluster.loopback.keep_replicas_on_loopback"

    def __init__(
        self,
        *,
        num_cpus: float | None = None,
        num_gpus: int | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
        open_http: bool = False,
        object_store_memory_bytes: int | None = None,
        run_folder: Path | None = None,
    ) -> None:
        if not open_http and not is_loopback_host(host):
            raise ParameterError(
                "the embedded cluster listens on loopback only",
                where="host",
                got=repr(host),
                allowed="127.0.0.1 or localhost",
                fix="deploy serve_config.yaml on a cluster of your own to serve other machines",
            )
        if run_folder is not None and len(str(run_folder)) > 40:
            raise ParameterError(
                "path too long for the Unix sockets in it",
                where="run_folder",
                got=str(run_folder),
                allowed="at most 40 characters",
            )
        self.host = host
        self.port = port
        self._open_http = open_http
        self._num_cpus = num_cpus
        self._num_gpus = num_gpus
        self._object_store_memory_bytes = object_store_memory_bytes
        self._keep_run_folder = run_folder is not None
        self._run_folder = run_folder
        self._environment: dict[str, str | None] = {}
        self._roots: list[Process] = []
        self._started = False

    @property
    def url(self) -> str:
        """Root of the HTTP API on this machine, without a trailing slash."""
        # No address of a machine, but all of this one's.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        host = f"[{host}]" if ":" in host else host
        return f"http://{host}:{self.port}"

    @property
    def run_folder(self) -> Path:
        """Sockets, logs and the token of this run."""
        assert self._run_folder is not None, "the cluster has not started"
        return self._run_folder

    @property
    def processes(self) -> list[int]:
        """Ids of the living processes that belong to the cluster (Linux; elsewhere none)."""
        return [process.pid for process in self._processes()]

    def start(self) -> Self:
        """Start Ray and Serve; ``with`` calls it.

        Raises:
            ClusterError: as the class says.
        """
        try:
            self._prepare_environment()
            self._start_ray()
            self._start_serve()
            self._refuse_open_ports()
        except BaseException:
            self.shutdown()
            raise
        return self

    def deploy(self, application: Application) -> None:
        """Put the application in place of whatever runs, and wait until all its parts run.

        Raises:
            ClusterError: a part did not start; the message holds its reason.
        """
        from ray import serve

        assert self._started, "deploy outside the with block"
        try:
            serve.run(
                application,
                name=APPLICATION,
                route_prefix="/",
                logging_config={"log_level": "WARNING", "enable_access_log": False},
            )
        except RuntimeError as error:
            raise ClusterError("\n".join([str(error), *_reasons()])) from error
        self._refuse_open_ports()

    def shutdown(self) -> None:
        """Stop the application, Serve and Ray, and end what is left of them; twice is harmless."""
        left = self._processes()
        started: list[subprocess.Popen[bytes]] = []
        if self._started:
            self._started = False
            import ray
            from ray.serve import context

            # Serve is not asked to drain: its replicas end with Ray, and what the application
            # has acknowledged is on disk. The next cluster of this process must not find this one's
            # controller in Serve's cache.
            context._set_global_client(None)
            # Threads of Serve's handles outlive the cluster: their next call would start another.
            ray._private.auto_init_hook.enable_auto_connect = False
            started = _started_by_ray()
            ray.shutdown()
            ray._private.worker._worker_logs_enabled = True
        end(left, grace_s=5.0)
        for process in started:
            # Ray ends them and never asks how they ended, which leaves zombies.
            process.wait(timeout=5.0)
        self._roots = []
        self._restore_environment()
        if self._run_folder is not None and not self._keep_run_folder:
            shutil.rmtree(self._run_folder, ignore_errors=True)
            self._run_folder = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.shutdown()

    def _processes(self) -> list[Process]:
        alive = [root for root in self._roots if root.alive]
        found = {process: None for root in alive for process in (root, *descendants(root.pid))}
        return list(found)

    def _prepare_environment(self) -> None:
        if self._run_folder is None:
            self._run_folder = Path(tempfile.mkdtemp(prefix="ws-"))
        self._run_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        token = self._run_folder / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        wanted = {
            # On Linux this makes every Ray process bind to 127.0.0.1; Ray has no other switch.
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_AUTH_TOKEN": None,
            "RAY_ADDRESS": None,
            "RAY_USAGE_STATS_ENABLED": "0",
            # A replica whose check fails is ended, not drained for as long as its grace lasts.
            "RAY_SERVE_FORCE_STOP_UNHEALTHY_REPLICAS": "1",
            # A busy machine may take longer than Serve's 5 s to start the HTTP proxy.
            "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        }
        for name, value in wanted.items():
            self._environment[name] = os.environ.get(name)
            _set_environment(name, value)

    def _restore_environment(self) -> None:
        for name, value in self._environment.items():
            _set_environment(name, value)
        self._environment = {}

    def _start_ray(self) -> None:
        imported_before = "ray" in sys.modules
        import ray

        if ray.is_initialized():
            raise ClusterError("Ray is already running in this process; one cluster at a time")
        if imported_before:
            _reread_environment()
        # The driver prints what happens to any worker on its standard output, whatever it is told
        # of logs; that is the caller's.
        ray._private.worker._worker_logs_enabled = False
        before = set(descendants(os.getpid()))
        self._started = True
        try:
            ray.init(
                address="local",
                num_cpus=self._num_cpus,
                num_gpus=self._num_gpus,
                object_store_memory=self._object_store_memory_bytes,
                namespace=NAMESPACE,
                include_dashboard=False,
                log_to_driver=False,
                runtime_env={"worker_process_setup_hook": self.worker_setup_hook},
                logging_level=logging.ERROR,
                configure_logging=True,
                _node_ip_address="127.0.0.1",
                # Ray opens its folder to everyone: it lies in one that is private.
                _temp_dir=str(self.run_folder / "ray"),
            )
        except Exception as error:
            raise ClusterError(f"Ray did not start: {error}") from error
        finally:
            self._roots = [p for p in descendants(os.getpid()) if p not in before]

    def _start_serve(self) -> None:
        from ray import serve

        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        self.port = _free_port(self.host, self.port)
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": self.host, "port": self.port},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )

    def _refuse_open_ports(self) -> None:
        found = listeners(self.processes)
        opened = [entry for entry in found if not entry.loopback and not self._is_http(entry)]
        if opened:
            places = ", ".join(f"{entry.address}:{entry.port}" for entry in opened)
            raise ClusterError(f"Ray listens where other machines reach it: {places}")

    def _is_http(self, entry: Listener) -> bool:
        return self._open_http and entry.port == self.port


def _started_by_ray() -> list[subprocess.Popen[bytes]]:
    """The children of this process that Ray's node started."""
    import ray

    node = ray._private.worker._global_node
    groups = node.all_processes.values() if node is not None else ()
    return [info.process for group in groups for info in group]


def _reasons() -> list[str]:
    """What Serve knows of each deployment that does not run: the last line of its failure."""
    from ray import serve

    application = serve.status().applications.get(APPLICATION)
    deployments = application.deployments if application else {}
    return [
        f"{name}: {lines[-1]}"
        for name, deployment in deployments.items()
        if (lines := deployment.message.strip().splitlines())
    ]


def _set_environment(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value


def _reread_environment() -> None:
    """Make a Ray that was imported earlier see the environment of this cluster."""
    import ray
    from ray._private import ray_constants

    ray_constants.ENABLE_RAY_CLUSTER = False
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()


def _free_port(host: str, port: int) -> int:
    """``port`` itself, if it is free; a free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        # As the server will: a port whose last connections linger is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ClusterError(f"cannot listen on {host}, port {port}: {error.strerror}") from error
        found = probe.getsockname()[1]
    assert isinstance(found, int)
    return found
