"""Which states a scene and a trajectory may go through: the one table of allowed transitions."""

from __future__ import annotations

from collections.abc import Mapping

from worldstereo_client.schemas import SceneStatus, TrajectoryStatus

# failed -> queued: it is resumed, by a caller; nothing else leaves a terminal state.
SCENE_TRANSITIONS: Mapping[SceneStatus, frozenset[SceneStatus]] = {
    SceneStatus.QUEUED: frozenset({SceneStatus.IN_PROGRESS, SceneStatus.CANCELLING}),
    SceneStatus.IN_PROGRESS: frozenset(
        {SceneStatus.COMPLETED, SceneStatus.FAILED, SceneStatus.CANCELLING}
    ),
    SceneStatus.CANCELLING: frozenset({SceneStatus.CANCELLED}),
    SceneStatus.COMPLETED: frozenset(),
    SceneStatus.FAILED: frozenset({SceneStatus.QUEUED}),
    SceneStatus.CANCELLED: frozenset(),
}

# blocked also stands for a trajectory whose scene has not been planned yet.
# queued -> completed: its result was found committed after a crash.
# in_progress -> queued: it is tried again.
# failed, skipped -> blocked: its scene is resumed.
TRAJECTORY_TRANSITIONS: Mapping[TrajectoryStatus, frozenset[TrajectoryStatus]] = {
    TrajectoryStatus.BLOCKED: frozenset(
        {TrajectoryStatus.QUEUED, TrajectoryStatus.SKIPPED, TrajectoryStatus.CANCELLED}
    ),
    TrajectoryStatus.QUEUED: frozenset(
        {
            TrajectoryStatus.IN_PROGRESS,
            TrajectoryStatus.COMPLETED,
            TrajectoryStatus.FAILED,
            TrajectoryStatus.CANCELLED,
        }
    ),
    TrajectoryStatus.IN_PROGRESS: frozenset(
        {
            TrajectoryStatus.QUEUED,
            TrajectoryStatus.COMPLETED,
            TrajectoryStatus.FAILED,
            TrajectoryStatus.CANCELLED,
        }
    ),
    TrajectoryStatus.COMPLETED: frozenset(),
    TrajectoryStatus.FAILED: frozenset({TrajectoryStatus.BLOCKED}),
    TrajectoryStatus.SKIPPED: frozenset({TrajectoryStatus.BLOCKED}),
    TrajectoryStatus.CANCELLED: frozenset(),
}
