"""What a scene goes through when a part of the service is killed at one of its stages.

Owns one deployed service with gates, a client that resumes with ``Last-Event-ID``, and what must
hold of a scene whatever died.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from worldstereo_client.schemas import Event, Scene

from configs.settings import AppArgs, GeneratorSettings, ModelSettings, OrchestratorSettings
from deployments.store import Store
from deployments.tables import sqlite_url
from tests import scenes
from tests.deployments import archive_files
from tests.deployments.gates import Gates
from tests.deployments.served import Service, check_completed, check_order
from worldstereo.formats.manifest import verify_manifest

# A part, and how the titles of its processes start.
PARTS = {
    "orchestrator": "ray::ServeReplica:worldstereo:orchestrator",
    "ingress": "ray::ServeReplica:worldstereo:ingress",
    "memory bank": "ray::MemoryBankActor",
    "coordinator": "ray::ServeReplica:worldstereo:generator",
    "worker": "ray::ModelWorker",
}
# The last two depend on the first.
VIEWS = {"view0": ("traj2", "traj0"), "target_door_0": ("traj0",)}
PATIENCE_S = 90.0


def settings(
    folder: Path,
    *,
    replicas: int = 1,
    coordinator_num_cpus: float = 0.01,
    worker_num_cpus: float = 0.1,
    beat_timeout_s: float = 30,
) -> AppArgs:
    """By default one replica of one worker, so that there is one process of each part to kill."""
    return AppArgs(
        model=ModelSettings(
            source="worldstereo-tiny",
            image_features="worldstereo-tiny/dinov2",
            torch_threads=None,
            worker_num_cpus=worker_num_cpus,
            engine="tests.deployments.gates:load",
        ),
        data_dir=folder / "data",
        database_url=sqlite_url(folder / "store.sqlite"),
        local_files_only=True,
        generator=GeneratorSettings(
            replicas=replicas,
            coordinator_num_cpus=coordinator_num_cpus,
            health_check_period_s=1,
            graceful_shutdown_timeout_s=1,
        ),
        orchestrator=OrchestratorSettings(
            num_cpus=0.01,
            bank_num_cpus=0.01,
            poll_interval_s=0.5,
            beat_timeout_s=beat_timeout_s,
        ),
    )


@dataclass(frozen=True)
class Recovered:
    """Seconds from the kill on.

    Attributes:
        told_s: until the client that watches heard of the next thing that happened.
        complete_s: until it heard that the scene is complete.
        events: all that it heard.
        files: sha256 of all artefacts by name.
        connections: how many the client made.
    """

    told_s: float
    complete_s: float
    events: list[Event]
    files: dict[str, str]
    connections: int


# A time by the monotonic clock, and by that of the events, seconds.
Moment = tuple[float, float]


def moment() -> Moment:
    """Now."""
    return time.monotonic(), time.time()


class Watcher:
    """A client that follows a scene's events to the end, and resumes where it lost them."""

    def __init__(self, url: str, scene: Scene, heard: Sequence[tuple[float, Event]] = ()) -> None:
        self.heard = list(heard)
        self.stopped = False
        self.connections = 0
        self._thread = threading.Thread(target=self._follow, args=(url + scene.urls.events,))
        self._thread.start()

    def wait(self) -> list[tuple[float, Event]]:
        """All events with the time they were heard at, once the scene has ended."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), self.heard[-3:]
        return self.heard

    def stop(self) -> None:
        """Follow no longer; what was heard so far stays."""
        self.stopped = True
        self._thread.join(PATIENCE_S)

    def until(self, sign: Callable[[Event], bool]) -> Event:
        """The first event that is a sign."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            for _, event in list(self.heard):
                if sign(event):
                    return event
            assert time.monotonic() < deadline, self.heard[-3:]
            time.sleep(0.02)

    def _follow(self, url: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.stopped and not self._ended() and time.monotonic() < deadline:
            try:
                self._listen(url)
            except httpx.TransportError:
                time.sleep(0.1)

    def _listen(self, url: str) -> None:
        last = self.heard[-1][1].id if self.heard else 0
        headers = {"Last-Event-ID": str(last)}
        with httpx.stream("GET", url, headers=headers, timeout=20) as response:
            if response.status_code != 200:  # no ingress is there
                time.sleep(0.1)
                return
            self.connections += 1
            for line in response.iter_lines():
                if line.startswith("data: "):
                    event = Event.model_validate_json(line.removeprefix("data: "))
                    self.heard.append((time.monotonic(), event))

    def _ended(self) -> bool:
        if not self.heard:
            return False
        last = self.heard[-1][1]
        return last.type == "scene" and last.status in ("completed", "failed", "cancelled")


def fill(ballast: Path, left_bytes: int) -> None:
    """Write a file until there is no more space for it, and give so much back."""
    with ballast.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(b"x" * 65536):
                continue
        file.truncate(max(0, file.tell() - left_bytes))


class RecoveryService:
    """The service with ``settings`` that runs in ``cluster``, and the gates of its processes."""

    def __init__(self, cluster: Any, gates: Gates, folder: Path) -> None:
        self.gates = gates
        self.service = Service(cluster, folder / "data")
        city = scenes.make_panorama(folder / "city", VIEWS, bank=4)
        self._archive = archive_files.zip_of_folder(city, "city/")
        self._store = Store(sqlite_url(folder / "store.sqlite"))

    def close(self) -> None:
        self._store.close()
        self.service.close()

    def undisturbed(self) -> dict[str, str]:
        """sha256 of all artefacts of the scene when nothing is killed."""
        self.gates.close("nowhere")
        scene = self._submit()
        self.service.wait(scene)
        self._check(scene, self.service.wait(scene))
        return self._files(scene)

    def killed(self, part: str, stage: str) -> Recovered:
        """Run the scene, with ``part`` killed (-9) while the scene stands at ``stage``."""
        victims: list[int] = []

        def strike() -> Moment:
            victims.extend(self.service.processes(PARTS[part]))
            (victim,) = victims
            at = moment()  # to find the process takes a while
            os.kill(victim, signal.SIGKILL)
            return at

        found = self.struck(stage, strike)
        assert found.connections == (2 if part == "ingress" else 1)
        assert not set(victims) & set(self.service.processes("ray::"))
        return found

    def begun(self, stage: str) -> tuple[Scene, Watcher]:
        """A new scene, held at ``stage``, and a client that follows it."""
        self._wait_until_whole()
        self.gates.close(stage)
        scene = self._submit()
        watcher = Watcher(self.service.cluster.url, scene)
        self.gates.wait(stage)
        return scene, watcher

    def _wait_until_whole(self) -> None:
        """Until there is a process of each part, which readiness alone may not know at once."""
        parts = [title for part, title in PARTS.items() if part != "memory bank"]
        deadline = time.monotonic() + PATIENCE_S
        while not all(self.service.processes(title) for title in parts):
            assert time.monotonic() < deadline, self.service.processes("ray::")
            time.sleep(0.1)
        self.service.wait_until_ready()

    def struck(self, stage: str, strike: Callable[[], Moment]) -> Recovered:
        """Run the scene, with something done to the service while the scene stands at ``stage``.

        Args:
            stage: where the scene is held.
            strike: does it, and says when.
        """
        scene, watcher = self.begun(stage)
        at = strike()
        self.gates.open(stage)
        return self.recovered(scene, watcher, at)

    def recovered(self, scene: Scene, watcher: Watcher, at: Moment) -> Recovered:
        """Wait for the end, see that nothing was lost, and how long it took.

        Args:
            scene: of the watcher.
            watcher: a client.
            at: when the blow fell.
        """
        killed_at, wall = at
        heard = watcher.wait()
        events = [event for _, event in heard]
        self._check(scene, events)
        return Recovered(
            told_s=next(when for when, event in heard if event.time > wall) - killed_at,
            complete_s=heard[-1][0] - killed_at,
            events=events,
            files=self._files(scene),
            connections=watcher.connections,
        )

    def without_space(self, stage: str, left_bytes: int) -> tuple[Event, list[str], dict[str, str]]:
        """Run the scene, with the disk full from ``stage`` on until it says so.

        Args:
            stage: where it is held meanwhile.
            left_bytes: of space, too few for what is written next.

        Returns:
            What it said, the names of the artefacts that were there then, and those of the end.
        """
        scene, watcher = self.begun(stage)
        ballast = self.service.data / "ballast"
        fill(ballast, left_bytes)
        self.gates.open(stage)
        told = watcher.until(lambda event: event.error is not None)
        files = list(self._files(scene))
        ballast.unlink()
        self._check(scene, [event for _, event in watcher.wait()])
        return told, files, self._files(scene)

    def _submit(self) -> Scene:
        return self.service.submit(self._archive, outputs=["transforms"])

    def _check(self, scene: Scene, events: list[Event]) -> None:
        ended = self.service.scene(scene)
        check_completed(ended)
        check_order(ended, events)
        assert verify_manifest(self.service.output(scene))
        passed = self.gates.passed()
        for trajectory in ended.trajectories:
            self._check_attempts(scene.id, trajectory.id)
            mine = [stage for stage, clip in passed if clip == trajectory.id]
            # "found" is where the clip was in its place, and the process died before it told.
            first = [stage for stage in mine if stage in ("committed", "found")]
            if first:
                rest = mine[mine.index(first[0]) :]
                assert rest.count("committed") <= 1, mine
                assert not {"encode", "denoise", "decode"} & set(rest), mine

    def _check_attempts(self, scene_id: str, trajectory_id: str) -> None:
        """Every attempt has ended, and none came after the one that committed the clip."""
        outcomes = [outcome for _, outcome, _ in self._store.attempts(scene_id, trajectory_id)]
        assert outcomes, trajectory_id
        assert set(outcomes) <= {"committed", "lost", "abandoned"}, outcomes
        assert outcomes.count("committed") == 1, outcomes
        assert outcomes[-1] == "committed", outcomes

    def _files(self, scene: Scene) -> dict[str, str]:
        return {item.name: item.sha256 for item in self.service.artefacts(scene)}
