"""Scenes of the stub server: scripts of events that become visible by the clock, and files."""

from __future__ import annotations

import time
from dataclasses import dataclass
from random import Random
from typing import Any

from worldstereo_client.schemas import (
    Event,
    Problem,
    Scene,
    SceneRequest,
    SceneStatus,
    SceneUrls,
    TrajectoryInfo,
    TrajectoryStatus,
)

TRAJECTORIES = ("renders/traj_up", "renders/traj_right")
STEPS = 3


def problem(status: int, error: str, what: str, **fields: str) -> Problem:
    return Problem(title=error, status=status, detail=what, error=error, what=what, **fields)


@dataclass
class StubScene:
    id: str
    name: str
    parameters: SceneRequest
    script: list[Event]
    artefacts: dict[str, bytes]
    files: dict[str, bytes]
    depth: bytes | None
    depth_unit: bytes | None
    created: float
    tick_s: float
    by_looks: bool
    looks: int = 0
    stopped_at: int | None = None

    def visible(self) -> list[Event]:
        if self.by_looks:
            return self.script[: self.looks]
        count = int((time.monotonic() - self.created) / self.tick_s) + 1 if self.tick_s else 10**9
        return self.script[:count]

    def snapshot(self) -> Scene:
        self.looks += 1
        status, states, steps = SceneStatus.QUEUED, {}, {}
        failed = None
        for event in self.visible():
            if event.type == "scene" and event.status:
                status, failed = SceneStatus(event.status), event.error
            elif event.type == "trajectory" and event.status and event.trajectory:
                states[event.trajectory] = TrajectoryStatus(event.status)
            elif event.trajectory:
                steps[event.trajectory] = (event.stage, event.step or 0, event.steps or 0)
        trajectories = [
            TrajectoryInfo(
                id=name,
                position=position,
                status=states.get(name, TrajectoryStatus.QUEUED),
                depends_on=list(TRAJECTORIES[:position]),
                stage=steps.get(name, (None, 0, 0))[0],
                step=steps.get(name, (None, 0, 0))[1],
                steps=steps.get(name, (None, 0, 0))[2],
            )
            for position, name in enumerate(TRAJECTORIES)
        ]
        done = sum(t.status is TrajectoryStatus.COMPLETED for t in trajectories)
        root = f"/v1/scenes/{self.id}"
        return Scene(
            id=self.id,
            name=self.name,
            status=status,
            parameters=self.parameters,
            created_at=1.0,
            progress=done / len(trajectories),
            trajectories=trajectories,
            error=failed,
            urls=SceneUrls(
                self=root,
                events=f"{root}/events",
                cancel=f"{root}/cancel",
                artefacts=f"{root}/artefacts",
            ),
        )

    def cancel(self) -> None:
        seen = self.visible()
        n = len(seen)
        ending = [
            Event(id=n + 1, time=0.0, type="scene", status="cancelling"),
            Event(id=n + 2, time=0.0, type="scene", status="cancelled"),
        ]
        self.script = seen + ending


def completed_script() -> list[Event]:
    events: list[dict[str, Any]] = [{"type": "scene", "status": "queued"}]
    events += [{"type": "scene", "status": "in_progress"}]
    for name in TRAJECTORIES:
        events += [{"type": "trajectory", "trajectory": name, "status": "in_progress"}]
        events += [
            {"type": "progress", "trajectory": name, "stage": "denoise", "step": k, "steps": STEPS}
            for k in range(1, STEPS + 1)
        ]
        events += [{"type": "trajectory", "trajectory": name, "status": "completed"}]
    events += [{"type": "scene", "status": "completed"}]
    return [Event(id=i, time=float(i), **event) for i, event in enumerate(events, 1)]


def failed_script(error: Problem) -> list[Event]:
    return [
        Event(id=1, time=1.0, type="scene", status="queued"),
        Event(id=2, time=2.0, type="scene", status="failed", error=error),
    ]


def queued_script() -> list[Event]:
    return [Event(id=1, time=1.0, type="scene", status="queued")]


def result_files() -> dict[str, bytes]:
    files = {}
    for name in TRAJECTORIES:
        files[f"{name}/video.mp4"] = Random(name).randbytes(200_000)
        files[f"{name}/frames/0000.png"] = Random(name + "0").randbytes(1_000)
        files[f"{name}/cameras.json"] = b"{}"
    files["manifest.json"] = b'{"schema_version": 1}'
    return files


KINDS = {".mp4": "video", ".png": "frame", "cameras.json": "cameras", "manifest.json": "manifest"}
