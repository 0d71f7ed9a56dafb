"""Nodes and the head die while a scene is denoised: it completes, the same to the bit.

One cluster of several nodes for the module; the last test leaves nothing of it.
"""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.deployments.gates import FOLDER, Gates
from tests.deployments.recovery import Moment, RecoveryService, Watcher, moment, settings
from tests.multi_node import MultiNode, multi_node

pytestmark = [pytest.mark.cluster, pytest.mark.recovery(by_default=False)]

# The head has room for all but workers, a node for one replica beside what Serve puts there.
HEAD_CPUS, NODE_CPUS, WORKER_CPUS = 1, 3, 2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("nodes")
    (folder / "gates").mkdir()
    (folder / "gcs").mkdir()
    return folder


@pytest.fixture(scope="module")
def nodes(folder: Path) -> Iterator[MultiNode]:
    variables = {FOLDER: str(folder / "gates")}
    with multi_node(
        gcs_folder=folder / "gcs", environment=variables, num_cpus=HEAD_CPUS
    ) as cluster:
        cluster.add_node(num_cpus=NODE_CPUS)
        cluster.deploy(settings(folder, worker_num_cpus=WORKER_CPUS))
        yield cluster


@pytest.fixture(scope="module")
def recovery(nodes: MultiNode, folder: Path) -> Iterator[RecoveryService]:
    service = RecoveryService(nodes, Gates(folder / "gates"), folder)
    yield service
    service.close()


@pytest.fixture(scope="module")
def truth(recovery: RecoveryService) -> dict[str, str]:
    return recovery.undisturbed()


Record = Callable[[str, object], None]


def tell(record: Record, what: str, told_s: float, complete_s: float) -> None:
    record("told_s", round(told_s, 2))
    record("complete_s", round(complete_s, 2))
    print(f"{what}: told {told_s:.2f} s, complete {complete_s:.2f} s")


def test_a_control_service_that_dies_and_comes_back_costs_nothing(
    nodes: MultiNode, recovery: RecoveryService, truth: dict[str, str], record_property: Record
) -> None:
    before = set(nodes.titled("ray::ServeReplica")) | set(nodes.titled("ray::ModelWorker"))

    def strike() -> Moment:
        at = moment()
        nodes.kill_gcs()
        time.sleep(2)
        nodes.start_gcs()
        return at

    found = recovery.struck("denoise", strike)
    tell(record_property, "control service", found.told_s, found.complete_s)
    assert found.files == truth
    assert found.connections == 1
    after = set(nodes.titled("ray::ServeReplica")) | set(nodes.titled("ray::ModelWorker"))
    assert after == before


def test_a_scene_whose_node_dies_completes_on_another(
    nodes: MultiNode, recovery: RecoveryService, truth: dict[str, str], record_property: Record
) -> None:
    (victim,) = [node for node in nodes.nodes.values() if nodes.titled("ray::ModelWorker", node)]
    other = nodes.add_node(num_cpus=NODE_CPUS)

    def strike() -> Moment:
        at = moment()
        nodes.remove_node(victim)
        return at

    found = recovery.struck("denoise", strike)
    tell(record_property, "node", found.told_s, found.complete_s)
    assert found.files == truth
    assert nodes.titled("ray::ModelWorker", other)


def test_everything_is_killed_and_a_new_cluster_goes_on(
    nodes: MultiNode,
    recovery: RecoveryService,
    truth: dict[str, str],
    folder: Path,
    record_property: Record,
) -> None:
    scene, watcher = recovery.begun("denoise")
    at = moment()
    for pid in nodes.processes:
        with suppress(ProcessLookupError):  # it went with one that was before it
            os.kill(pid, signal.SIGKILL)
    watcher.stop()
    recovery.gates.open("denoise")
    with multi_node(
        environment={FOLDER: str(folder / "gates")}, num_cpus=HEAD_CPUS + NODE_CPUS
    ) as cluster:
        cluster.deploy(settings(folder, worker_num_cpus=WORKER_CPUS))
        again = RecoveryService(cluster, recovery.gates, folder)
        resumed = Watcher(cluster.url, scene, heard=watcher.heard)
        found = again.recovered(scene, resumed, at)
        again.close()
    tell(record_property, "everything", found.told_s, found.complete_s)
    assert found.files == truth
