"""kill -9 of each part of the service at each stage of a scene: nothing is lost, nothing is new.

One cluster for the module. A few cells of the matrix run by default, all with ``-m recovery``.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.clusters import running_cluster
from tests.deployments.gates import FOLDER, STAGES, GatedCluster, Gates
from tests.deployments.recovery import PARTS, RecoveryService

pytestmark = [pytest.mark.cluster]

BY_DEFAULT = {
    ("orchestrator", "plan"),
    ("orchestrator", "denoise"),
    ("orchestrator", "committed"),
    ("orchestrator", "finish"),
    ("ingress", "denoise"),
    ("memory bank", "retrieve"),
    ("memory bank", "commit"),
    ("memory bank", "committed"),
    ("memory bank", "outputs"),
    ("coordinator", "decode"),
    ("coordinator", "commit"),
    ("worker", "encode"),
}


@pytest.fixture(scope="module")
def recovery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecoveryService]:
    folder = tmp_path_factory.mktemp("gates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        with running_cluster(GatedCluster, num_cpus=2, num_gpus=0) as cluster:
            service = RecoveryService(cluster, Gates(folder), tmp_path_factory.mktemp("recovery"))
            yield service
            service.close()


@pytest.fixture(scope="module")
def truth(recovery: RecoveryService) -> dict[str, str]:
    return recovery.undisturbed()


@pytest.mark.parametrize(
    ("part", "stage"),
    [
        pytest.param(
            part, stage, marks=pytest.mark.recovery(by_default=(part, stage) in BY_DEFAULT)
        )
        for part in PARTS
        for stage in STAGES
    ],
)
def test_whatever_is_killed_the_scene_is_the_same_to_the_bit(
    part: str,
    stage: str,
    recovery: RecoveryService,
    truth: dict[str, str],
    record_property: Callable[[str, object], None],
) -> None:
    found = recovery.killed(part, stage)
    record_property("told_s", round(found.told_s, 2))
    record_property("complete_s", round(found.complete_s, 2))
    print(f"{part} at {stage}: told {found.told_s:.2f} s, complete {found.complete_s:.2f} s")
    assert found.files == truth
