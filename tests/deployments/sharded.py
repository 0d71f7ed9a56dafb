"""A generator of two ranks behind Serve as fault tests see it: its clips, processes and places."""

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve
from ray.util import placement_group_table

from actors.messages import (
    Advanced,
    ClipRequest,
    Committed,
    Failed,
    Message,
    Preparation,
    Started,
    WorkerLost,
)
from actors.worker_group import GroupSpec
from cluster.local import APPLICATION, LocalCluster
from cluster.processes import is_running
from deployments.generator import Deadlines, Generator
from tests.actors.engines import TWO_RANKS, spec_of
from worldstereo.types import Clip, UInt8

PATIENCE_S = 60.0
STEPS = 16
DEADLINES = Deadlines(
    beat_interval_s=0.5, beat_timeout_s=5, retrieve_s=20, step_s=6, commit_s=20, grace_s=4
)


class OneClipBank:
    """A memory bank whose every trajectory is the same clip; keeps the frames that it is given."""

    def __init__(self, clip: Clip) -> None:
        self._clip = clip
        self._frames: dict[str, UInt8] = {}

    def prepare(self, trajectory_id: str, attempt_id: str) -> tuple[Clip, Preparation]:
        return self._clip, Preparation(committed=False)

    def commit(
        self, trajectory_id: str, frames: UInt8, generation: dict[str, Any], attempt_id: str
    ) -> bool:
        self._frames[trajectory_id] = frames
        return True

    def wanted(self, epoch: str) -> bool:
        return True

    def frames(self, trajectory_id: str) -> UInt8:
        return self._frames[trajectory_id]


@dataclass(frozen=True)
class Ranks:
    """Process ids of a replica."""

    coordinator: int
    ranks: tuple[int, ...]

    @property
    def all(self) -> tuple[int, ...]:
        return (self.coordinator, *self.ranks)


class ShardedGenerator:
    """One replica of two ranks in ``cluster``; the ranks do what files in ``faults`` say."""

    def __init__(self, cluster: LocalCluster, faults: Path, clip: Clip) -> None:
        group = GroupSpec(spec_of("meeting", TWO_RANKS, str(faults)), 2, 0.1, 0, 60)
        deployment = serve.deployment(Generator).options(
            max_ongoing_requests=2,
            placement_group_bundles=[{"CPU": 0.1}] * 3,
            placement_group_strategy="PACK",
            ray_actor_options={"num_cpus": 0.1},
            health_check_period_s=1,
            graceful_shutdown_timeout_s=1,
        )
        cluster.deploy(deployment.bind(group, DEADLINES))
        self.cluster = cluster
        self.faults = faults
        bank = ray.remote(concurrency_groups={"control": 2})(OneClipBank)
        self._bank = bank.options(num_cpus=0.1).remote(clip)
        self._handle = serve.get_app_handle(APPLICATION).options(stream=True)

    def ask(self, name: str, steps: int = STEPS) -> Any:
        """The stream of one attempt at the clip of this name."""
        request = ClipRequest(uuid.uuid4().hex, "epoch", name, self._bank, steps)
        return self._handle.generate.remote(request)

    def attempt(self, name: str, at_step_2: Callable[[], None] = lambda: None) -> Message:
        """The last word of an attempt; a replica that is gone says that it is lost."""
        last: Message = Failed(WorkerLost("said nothing"), retry=True)
        try:
            for last in self.ask(name):
                if last == Advanced("denoise", 2, STEPS):
                    at_step_2()
        except Exception as error:  # noqa: BLE001 - Serve and Ray raise many
            return Failed(WorkerLost("its replica is gone", got=type(error).__name__), retry=True)
        return last

    def until_committed(self, name: str) -> None:
        """Try, as an orchestrator does, until the clip is there."""
        deadline = time.monotonic() + PATIENCE_S
        while not isinstance(last := self.attempt(name), Committed):
            assert isinstance(last, Failed)
            assert last.retry
            assert time.monotonic() < deadline, last
            time.sleep(0.1)

    def reasons(self) -> list[str]:
        """Why replicas ended, as their log files say."""
        logs = self.cluster.run_folder / "ray" / "session_latest" / "logs"
        lines = [
            line for file in logs.glob("worker-*.err") for line in file.read_text().splitlines()
        ]
        return [line for line in lines if "replica ends" in line]

    def frames(self, name: str) -> UInt8:
        frames: UInt8 = np.array(ray.get(self._bank.frames.remote(name)))
        return frames

    def processes(self) -> Ranks:
        """The replica's, once it serves."""
        stream = self.ask("who are you", steps=1)
        started = next(message for message in stream if isinstance(message, Started))
        ping = started.worker.ping.options(concurrency_group="control")
        leader = ray.get(ping.remote()).pid
        for _ in stream:  # to its end, so that the replica is free
            continue
        (coordinator,) = self._titled(f"ray::ServeReplica:{APPLICATION}")
        (follower,) = set(self._titled("ray::ModelWorker")) - {leader}
        return Ranks(coordinator, (leader, follower))

    def wait_until_gone(self, old: Ranks) -> float:
        """Seconds until none of these runs, and one placement group is left: the new replica's."""
        start = time.monotonic()
        while any(map(is_running, old.all)) or len(placement_groups()) != 1:
            assert time.monotonic() - start < PATIENCE_S, (
                [pid for pid in old.all if is_running(pid)],
                placement_groups(),
            )
            time.sleep(0.05)
        return time.monotonic() - start

    def _titled(self, title: str) -> Iterator[int]:
        for pid in self.cluster.processes:
            with suppress(OSError):  # ended meanwhile
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
                if words.decode(errors="replace").startswith(title):
                    yield pid


def placement_groups() -> list[str]:
    """States of the placement groups that are there."""
    states = [entry["state"] for entry in placement_group_table().values()]
    return [state for state in states if state != "REMOVED"]
