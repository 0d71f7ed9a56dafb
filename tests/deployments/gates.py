"""Gates at the stages of a scene, so that a test can do something while the scene is at one.

Owns a folder that the test and the cluster's processes share. The processes run the real code;
``install`` lets them pass a gate at each stage, and note that they did. A closed gate holds whoever
comes to it, until the test opens it.
"""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.engine import EngineSpec
from cluster.local import LocalCluster
from cluster.loopback import keep_replicas_on_loopback
from tests.conftest import ROOT
from tests.deployments.fake_engine import FakeEngine
from worldstereo.types import Clip, Progress, UInt8

# In the order in which a scene comes to them. "commit": all is written, under a temporary name;
# "committed": the clip is in its place, and nobody was told.
STAGES = (
    "plan",
    "retrieve",
    "encode",
    "denoise",
    "decode",
    "commit",
    "committed",
    "outputs",
    "finish",
)
FOLDER = "WORLDSTEREO_TEST_GATES"  # environment variable of the cluster's processes
HELD_STEP = 2
PATIENCE_S = 60.0


class GatedCluster(LocalCluster):
    """The embedded cluster, whose processes pass the gates in ``FOLDER``."""

    worker_setup_hook = "tests.deployments.gates.install"

    def _prepare_environment(self) -> None:
        super()._prepare_environment()
        # A process imports its hook before Ray has told it where its driver finds modules.
        self._environment["PYTHONPATH"] = found = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), found]))


@dataclass(frozen=True)
class Gates:
    """The test's side."""

    folder: Path

    def close(self, stage: str) -> None:
        """Hold whoever comes to ``stage`` from now on; what was noted before is forgotten."""
        for path in self.folder.iterdir():
            path.unlink()
        (self.folder / stage).touch()

    def wait(self, stage: str) -> None:
        """Until someone is held at ``stage``."""
        deadline = time.monotonic() + PATIENCE_S
        while not (self.folder / f"{stage}.held").exists():
            assert time.monotonic() < deadline, f"nobody came to {stage}: {self.passed()}"
            time.sleep(0.01)

    def holds(self, stage: str) -> int:
        """Id of the process that is held at ``stage``."""
        return int((self.folder / f"{stage}.held").read_text())

    def open(self, stage: str) -> None:
        (self.folder / stage).unlink()

    def passed(self) -> list[tuple[str, str]]:
        """Stage and clip of all who came to a gate, in order."""
        lines = (self.folder / "passed").read_text().splitlines()
        return [(stage, what) for stage, _, what in (line.partition(" ") for line in lines)]


def come_to(stage: str, what: str) -> None:
    """Called by the cluster's processes at a stage of ``what``."""
    folder = Path(os.environ[FOLDER])
    line = os.open(folder / "passed", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(line, f"{stage} {what}\n".encode())
    os.close(line)
    if (folder / stage).exists():
        (folder / f"{stage}.held").write_text(str(os.getpid()))
        while (folder / stage).exists():
            time.sleep(0.01)


class GatedEngine(FakeEngine):
    """The fake engine, with gates at its stages."""

    def generate(
        self, clip: Clip, *, on_stage: Callable[[Progress], None] | None = None, **parameters: Any
    ) -> UInt8:
        def on_gated_stage(progress: Progress) -> None:
            if on_stage is not None:
                on_stage(progress)
            if progress.stage != "denoise" or progress.step == HELD_STEP:
                come_to(progress.stage, clip.trajectory_id)

        return super().generate(clip, on_stage=on_gated_stage, **parameters)


def load(spec: EngineSpec, mesh: object) -> GatedEngine:
    return GatedEngine()


def install() -> None:
    """Set-up hook of the cluster's processes: the memory bank passes the gates."""
    keep_replicas_on_loopback()
    from actors import memory_bank

    bank: Any = memory_bank.MemoryBankActor
    bank.prepare = _gated("retrieve", bank.prepare)
    bank.commit = _gated_commit(bank.commit)
    bank.finish = _gated("finish", bank.finish)
    bank._advance = _gated("outputs", bank._advance)
    bank._open_scene = _gated("plan", bank._open_scene)


def _gated(stage: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def gated(self: Any, *arguments: Any) -> Any:
        come_to(stage, str(arguments[0]) if arguments else "")
        return method(self, *arguments)

    return gated


def _gated_commit(method: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(method)
    def gated(self: Any, trajectory_id: str, *arguments: Any) -> bool:
        from worldstereo.formats import results as results_module

        results: Any = results_module

        def flush_tree(folder: Path) -> None:  # the last thing before the clip is renamed
            original(folder)
            come_to("commit", trajectory_id)

        original = results.flush_tree
        results.flush_tree = flush_tree
        try:
            first = method(self, trajectory_id, *arguments)
        finally:
            results.flush_tree = original
        come_to("committed" if first else "found", trajectory_id)
        return first

    return gated
