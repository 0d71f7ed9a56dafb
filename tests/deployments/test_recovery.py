"""kill -9 of each part of the service at each stage of a scene: nothing is lost, nothing is new.

One cluster for the module. A few cells of the matrix run by default, all with ``-m recovery``.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.app import build_app
from tests.clusters import running_cluster
from tests.deployments.gates import FOLDER, STAGES, GatedCluster, Gates
from tests.deployments.recovery import PARTS, RecoveryService, settings

pytestmark = [pytest.mark.cluster]

# Beside test_cluster.py, which kills each part but the ingress while clips are denoised.
BY_DEFAULT = {
    ("ingress", "denoise"),
    ("memory bank", "commit"),
    ("coordinator", "decode"),
    ("worker", "encode"),
}


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder whose ``data`` is a file system of its own, where one can be mounted."""
    folder = tmp_path_factory.mktemp("recovery")
    data = folder / "data"
    data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(data)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    yield folder
    if mounted:
        subprocess.run(["umount", "--lazy", str(data)], check=True)


@pytest.fixture(scope="module")
def recovery(
    small_disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RecoveryService]:
    folder = tmp_path_factory.mktemp("gates")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        with running_cluster(GatedCluster, num_cpus=2, num_gpus=0) as cluster:
            cluster.deploy(build_app(settings(small_disk)))
            service = RecoveryService(cluster, Gates(folder), small_disk)
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


@pytest.mark.parametrize(
    ("stage", "left_bytes", "waits_at"),
    [  # some frames of a clip, nothing
        pytest.param("decode", 40_000, "commit", marks=pytest.mark.recovery(by_default=True)),
        pytest.param("finish", 0, "wait", marks=pytest.mark.recovery(by_default=False)),
    ],
)
def test_a_full_disk_pauses_the_scene_until_there_is_space(
    stage: str, left_bytes: int, waits_at: str, recovery: RecoveryService, truth: dict[str, str]
) -> None:
    if not recovery.service.data.is_mount():
        pytest.skip(
            "mounting a small disk takes root: sudo .venv/bin/python -m pytest "
            "tests/deployments/test_recovery.py"
        )
    told, files, in_the_end = recovery.without_space(stage, left_bytes)
    assert told.stage == waits_at
    assert told.error is not None
    assert told.error.error == "StorageFull"
    # Nothing half-written is to be seen: what is there is whole.
    assert set(files) == {name for name in truth if stage == "finish" or name == "plan.json"} - (
        {"manifest.json"}
    )
    assert in_the_end == truth
