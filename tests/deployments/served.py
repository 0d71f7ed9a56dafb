"""A deployed application as cluster tests see it: its HTTP API, its processes, its bits."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from worldstereo_client.schemas import Artefact, ArtefactList, Event, Scene

from cluster.local import LocalCluster
from tests.deployments.fake_engine import fake_frames
from worldstereo.config import ModelConfig, SceneParameters
from worldstereo.formats.scene_folder import read_scene
from worldstereo.memory.features import DinoFeatures
from worldstereo.scene import SceneRun
from worldstereo.types import Clip, UInt8

PATIENCE_S = 90.0


@dataclass
class Service:
    """The application that runs in ``cluster`` and keeps its data in ``data``."""

    cluster: LocalCluster
    data: Path

    def __post_init__(self) -> None:
        self.http = httpx.Client(base_url=self.cluster.url, timeout=PATIENCE_S)

    def close(self) -> None:
        self.http.close()

    def submit(self, archive: bytes, **parameters: Any) -> Scene:
        files = {"scene": ("scene.zip", archive), "parameters": (None, json.dumps(parameters))}
        response = self.http.post("/v1/scenes", files=files)
        assert response.status_code == 202, response.text
        return Scene.model_validate_json(response.content)

    def scene(self, scene: Scene) -> Scene:
        return Scene.model_validate_json(self.http.get(scene.urls.self).content)

    def events(self, scene: Scene, after: int = 0) -> Iterator[Event]:
        """Events until the scene ends; the connection is closed with the iterator."""
        headers = {"Last-Event-ID": str(after)}
        with self.http.stream("GET", scene.urls.events, headers=headers) as response:
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield Event.model_validate_json(line.removeprefix("data: "))

    def wait(self, scene: Scene) -> list[Event]:
        """All events of a scene, once it has ended."""
        return list(self.events(scene))

    def wait_for(self, scene: Scene, sign: str, count: int = 1) -> Event:
        """The ``count``-th event whose stage and step, or status, read like ``sign``."""
        for event in self.events(scene):
            if sign in (event.status, f"{event.stage} {event.step}", event.stage):
                count -= 1
                if count == 0:
                    return event
        raise AssertionError(f"the scene ended without {sign}")

    def artefacts(self, scene: Scene) -> list[Artefact]:
        response = self.http.get(scene.urls.artefacts)
        return ArtefactList.model_validate_json(response.content).artefacts

    def frames(self, scene: Scene) -> dict[str, str]:
        """sha256 of each frame that the scene has, by name."""
        return {item.name: item.sha256 for item in self.artefacts(scene) if item.kind == "frame"}

    def output(self, scene: Scene) -> Path:
        return self.data / "scenes" / scene.id / "output"

    def processes(self, title: str) -> list[int]:
        """Ids of the cluster's processes whose title starts with this."""
        found = []
        for pid in self.cluster.processes:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:  # ended meanwhile
                continue
            if words.decode(errors="replace").startswith(title):
                found.append(pid)
        return found

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while self.http.get("/readyz").status_code != 200:
            assert time.monotonic() < deadline, self.http.get("/readyz").text
            time.sleep(0.2)


def statuses(scene: Scene) -> dict[str, str]:
    return {item.id: str(item.status) for item in scene.trajectories}


def check_completed(scene: Scene) -> None:
    """The scene has completed; where not, the message says why."""
    reasons = {item.id: item.error.detail for item in scene.trajectories if item.error}
    assert str(scene.status) == "completed", (scene.error and scene.error.detail, reasons)


def check_order(scene: Scene, events: list[Event]) -> None:
    """Ids without gap; no clip starts before all that it depends on are committed."""
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert (events[0].status, events[-1].type) == ("queued", "scene")
    place: dict[tuple[str | None, str | None], int] = {}
    for event in events:
        if event.type == "trajectory":
            place.setdefault((event.trajectory, event.status), event.id)
    for trajectory in scene.trajectories:
        if (trajectory.id, "in_progress") not in place:
            continue
        for other in trajectory.depends_on:
            assert place[other, "completed"] < place[trajectory.id, "in_progress"]


def one_by_one(
    folder: Path,
    output: Path,
    config: ModelConfig,
    generate: Callable[[Clip], UInt8] = fake_frames,
) -> dict[str, str]:
    """The truth: sha256 of each frame when a scene's clips are made in turn in one process."""
    scene = read_scene(folder, scale_map=config.scale_map, nframe=config.nframe)
    features = DinoFeatures.from_pretrained("worldstereo-tiny", local_files_only=True)
    run = SceneRun.open(scene, SceneParameters(), config, output, image_features=features)
    for trajectory in run.plan.trajectories:
        run.commit(trajectory.id, generate(run.prepare(trajectory.id)), {})
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.rglob("frames/*.png")
    }
