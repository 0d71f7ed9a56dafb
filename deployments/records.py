"""What the store holds, as plain values, and how a scene looks on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from worldstereo_client.schemas import (
    Problem,
    Scene,
    SceneRequest,
    SceneStatus,
    SceneSummary,
    SceneUrls,
    TrajectoryInfo,
    TrajectoryStatus,
)

# What it was submitted as: a scene, or a video of the OpenAI-compatible API.
SceneKind = Literal["scene", "video"]


@dataclass(frozen=True)
class NewScene:
    """A validated scene that is about to be stored; trajectory ids in canonical order."""

    id: str
    name: str
    parameters: SceneRequest
    trajectories: tuple[str, ...]
    kind: SceneKind = "scene"
    owner: str = ""
    priority: int = 0


@dataclass(frozen=True)
class Submission:
    """An idempotency key of an owner and the fingerprint of the request that it came with."""

    key: str
    body_sha256: str
    owner: str = ""


@dataclass(frozen=True)
class EndedScene:
    """What is asked of a scene to tell whether it is still kept."""

    id: str
    name: str
    status: SceneStatus
    finished_at: float


@dataclass(frozen=True)
class SceneRecord:
    """A scene as it stands; ``number`` is its place in the order of submission."""

    number: int
    id: str
    name: str
    status: SceneStatus
    parameters: SceneRequest
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: Problem | None
    last_event: int
    trajectories: tuple[TrajectoryInfo, ...]
    kind: SceneKind = "scene"
    owner: str = ""
    priority: int = 0

    @property
    def progress(self) -> float:
        """Share of the work that is done, the steps of running clips counted."""
        return progress_of(
            [(item.status, item.stage, item.step, item.steps) for item in self.trajectories]
        )

    def eta_s(self, now: float) -> float | None:
        """Seconds until the clips are done, if they go on at the pace since the scene began.

        None before a quarter of a clip is done, and for a scene that is not in progress.
        """
        if self.status is not SceneStatus.IN_PROGRESS or self.started_at is None:
            return None
        done = left = 0.0
        for item in self.trajectories:
            share = _share(item.status, item.stage, item.step, item.steps)
            left += 1 - share
            # What ended before the scene was resumed, or was never begun, says nothing of the pace.
            earlier = item.finished_at is not None and item.finished_at < self.started_at
            if not earlier and item.status is not TrajectoryStatus.SKIPPED:
                done += share
        if not left or done < 0.25:
            return None
        return (now - self.started_at) * left / done

    def on_the_wire(self, queue_position: int | None, now: float) -> Scene:
        """The scene as HTTP shows it.

        Args:
            queue_position: how many wait in front of it, while it waits.
            now: seconds since the epoch.
        """
        return Scene(
            id=self.id,
            name=self.name,
            status=self.status,
            parameters=self.parameters,
            created_at=self.created_at,
            started_at=self.started_at,
            finished_at=self.finished_at,
            progress=self.progress,
            queue_position=queue_position,
            eta_s=self.eta_s(now),
            trajectories=list(self.trajectories),
            error=self.error,
            urls=scene_urls(self.id),
        )

    def summary(self) -> SceneSummary:
        """The scene's row in a list."""
        return SceneSummary(
            id=self.id,
            name=self.name,
            status=self.status,
            variant=self.parameters.variant,
            created_at=self.created_at,
            finished_at=self.finished_at,
            progress=self.progress,
        )


def scene_urls(scene_id: str) -> SceneUrls:
    """Paths of a scene's resources."""
    root = f"/v1/scenes/{scene_id}"
    return SceneUrls(
        self=root, events=f"{root}/events", cancel=f"{root}/cancel", artefacts=f"{root}/artefacts"
    )


# How much of a clip is done when a stage begins; denoising fills its share step by step.
_STAGE_BEGINS: Mapping[str, float] = {"encode": 0.05, "denoise": 0.1, "decode": 0.9, "commit": 0.95}


def progress_of(states: list[tuple[TrajectoryStatus, str | None, int, int]]) -> float:
    """Mean over trajectories of (status, stage, step, steps); one that ended counts as whole."""
    if not states:
        return 0.0
    return sum(_share(*state) for state in states) / len(states)


def _share(status: TrajectoryStatus, stage: str | None, step: int, steps: int) -> float:
    if status.terminal:
        return 1.0
    if status is not TrajectoryStatus.IN_PROGRESS:
        return 0.0
    done = _STAGE_BEGINS.get(stage or "", 0.0)
    if stage == "denoise" and steps:
        done += (_STAGE_BEGINS["decode"] - done) * step / steps
    return done


def problem_from(stored: Mapping[str, Any] | None) -> Problem | None:
    """A problem body as it was stored."""
    return Problem.model_validate(stored) if stored is not None else None
