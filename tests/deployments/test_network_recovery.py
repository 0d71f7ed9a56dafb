"""The cable of a host is pulled while it denoises a clip: the scene completes on another host.

Three hosts in network namespaces of the test's own, with Ray on them as on real machines.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from configs.settings import AuthSettings
from tests import network_hosts
from tests.deployments.gates import FOLDER, Gates
from tests.deployments.recovery import (
    PARTS,
    PATIENCE_S,
    Moment,
    RecoveryService,
    moment,
    settings,
)
from tests.network_hosts import Host, Hosts, network

pytestmark = [pytest.mark.cluster, pytest.mark.recovery(by_default=False)]

# All but the replicas is on the head: a replica fills a host, and has no room on the head.
HEAD_CPUS, HOST_CPUS = 2, 4
# How soon Ray holds a silent host for dead; its own values take half a minute.
QUICK = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("hosts")
    (folder / "gates").mkdir()
    return folder


@pytest.fixture(scope="module")
def hosts(folder: Path) -> Iterator[Hosts]:
    reason = network_hosts.lacking()
    if reason:
        pytest.skip(reason)
    variables = QUICK | {FOLDER: str(folder / "gates")}
    with network(("head", "one", "two"), variables) as hosts:
        hosts.start_ray("head", HEAD_CPUS)
        args = settings(
            folder, replicas=2, coordinator_num_cpus=1, worker_num_cpus=3, beat_timeout_s=6
        )
        # Nobody but the test's own hosts reaches the address.
        open_to_hosts = AuthSettings(allow_unauthenticated=True)
        args = args.model_copy(update={"auth": open_to_hosts})
        deploying = hosts.begin_to_deploy(args)
        deadline = time.monotonic() + PATIENCE_S
        while not all(
            hosts.on(hosts.hosts["head"], PARTS[part]) for part in ("ingress", "orchestrator")
        ):
            assert deploying.poll() in (None, 0)
            assert time.monotonic() < deadline, "neither ingress nor orchestrator on the head"
            time.sleep(0.2)
        for name in ("one", "two"):
            hosts.start_ray(name, HOST_CPUS)
        assert deploying.wait(PATIENCE_S) == 0
        yield hosts


@pytest.fixture(scope="module")
def recovery(hosts: Hosts, folder: Path) -> Iterator[RecoveryService]:
    service = RecoveryService(hosts, Gates(folder / "gates"), folder)
    yield service
    service.close()


@pytest.fixture(scope="module")
def truth(recovery: RecoveryService) -> dict[str, str]:
    return recovery.undisturbed()


def host_of_worker(hosts: Hosts, gates: Gates) -> Host:
    (found,) = [host for host in hosts.hosts.values() if gates.holds("denoise") in hosts.on(host)]
    return found


@pytest.mark.parametrize("what", ["cut", "lost"])
def test_a_scene_whose_host_is_gone_completes_on_another(
    what: str,
    hosts: Hosts,
    recovery: RecoveryService,
    truth: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    struck: list[Host] = []

    def strike() -> Moment:
        host = host_of_worker(hosts, recovery.gates)
        struck.append(host)
        at = moment()
        hosts.cut(host)
        if what == "lost":
            for pid in hosts.on(host):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        return at

    found = recovery.struck("denoise", strike)
    record_property("told_s", round(found.told_s, 2))
    record_property("complete_s", round(found.complete_s, 2))
    print(f"host {what}: told {found.told_s:.2f} s, complete {found.complete_s:.2f} s")
    assert found.files == truth
    (host,) = struck
    hosts.join(host)
    if what == "cut":  # whatever was still running there changes nothing now
        deadline = time.monotonic() + PATIENCE_S
        while hosts.on(host, "ray::"):
            assert time.monotonic() < deadline, "the host's old processes go on"
            time.sleep(0.2)
        hosts.start_ray(host.name, HOST_CPUS)
        assert len({host.name for host in hosts.hosts.values() if hosts.on(host)}) == len(
            hosts.hosts
        )
