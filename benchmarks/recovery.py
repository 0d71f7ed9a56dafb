"""kill -9 of each part of the service at each stage of a scene: seconds until told, until complete.

``python -m benchmarks.recovery``. One embedded cluster, one replica, a fake engine that takes 0.2 s
a clip, three clips of which two depend on the first, so that what is measured is the recovery. The
scene is held at the stage while the part is killed. Every cell must end with the files of an
undisturbed run, to the bit.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.environment import write_result
from deployments.app import build_app
from tests.deployments.gates import FOLDER, STAGES, GatedCluster, Gates
from tests.deployments.recovery import PARTS, RecoveryService, settings


def measure(service: RecoveryService) -> dict[str, Any]:
    truth = service.undisturbed()
    began = time.monotonic()
    assert service.undisturbed() == truth
    found: dict[str, Any] = {"undisturbed_s": time.monotonic() - began, "rows": []}
    for part in PARTS:
        for stage in STAGES:
            recovered = service.killed(part, stage)
            assert recovered.files == truth, (part, stage)
            row = {
                "part": part,
                "stage": stage,
                "told_s": round(recovered.told_s, 2),
                "complete_s": round(recovered.complete_s, 2),
            }
            print(row, flush=True)
            found["rows"].append(row)
        write_result("recovery", found)  # what is there, should the rest fail
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "gates").mkdir()
        os.environ[FOLDER] = str(folder / "gates")
        with GatedCluster(num_cpus=2, num_gpus=0) as cluster:
            cluster.deploy(build_app(settings(folder)))
            service = RecoveryService(cluster, Gates(folder / "gates"), folder)
            found = measure(service)
            found["load_average"] = os.getloadavg()[0]
            service.close()
    print(write_result("recovery", found))


if __name__ == "__main__":
    main()
