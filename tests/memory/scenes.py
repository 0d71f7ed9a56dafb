"""Scenes of random cameras and frames, made from a seed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from worldstereo.memory.plan import ScenePlan
from worldstereo.types import (
    BankFrame,
    Cameras,
    Float32,
    SceneInput,
    TrajectoryInput,
    UInt8,
)

# Canonical order of a small panorama scene, every kind of trajectory in it.
NAMES = (
    "view0/traj2",
    "view0/traj0",
    "view0/traj1",
    "target_chair_0/traj0",
    "target_chair_0/traj1",
    "reconstruct_0/traj0",
    "wonder_0/traj0",
    "wonder_0/traj1",
    "reconstruct_0/traj1",
)
SIZE = (16, 24)


def random_cameras(
    random: np.random.Generator, count: int, *, height: int = 48, width: int = 80
) -> Cameras:
    """A path of cameras that turn and move a little from frame to frame."""
    angles = random.uniform(-180, 180) + np.cumsum(random.normal(0, 12, count))
    tilts = np.cumsum(random.normal(0, 3, count))
    centers = random.normal(0, 2, 3) + np.cumsum(random.normal(0, 0.3, (count, 3)), axis=0)
    camera_from_world = np.tile(np.eye(4), (count, 1, 1))
    rotation = Rotation.from_euler("yx", np.stack([angles, tilts], axis=1), degrees=True)
    camera_from_world[:, :3, :3] = rotation.as_matrix()
    camera_from_world[:, :3, 3] = -np.einsum("nij,nj->ni", rotation.as_matrix(), centers)
    focal = random.uniform(0.5, 1.2) * width
    intrinsics = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Cameras(
        camera_from_world.astype(np.float32),
        np.tile(intrinsics, (count, 1, 1)).astype(np.float32),
        height,
        width,
    )


def random_scene(
    seed: int, *, frames: int = 9, start_frames: int = 5, image: Path = Path("start.png")
) -> SceneInput:
    """A panorama scene of ``NAMES`` whose cameras are random; only ``image`` may exist."""
    random = np.random.default_rng(seed)
    trajectories = []
    for name in NAMES:
        view, trajectory = name.split("/")
        iterative = name == "reconstruct_0/traj1"
        trajectories.append(
            TrajectoryInput(
                view=view,
                name=trajectory,
                cameras=random_cameras(random, frames),
                prompt="a room",
                start_image=None if iterative else image,
                starts_after="reconstruct_0/traj0" if iterative else None,
            )
        )
    return SceneInput(
        name="random",
        layout="panorama",
        root=image.parent,
        size=SIZE,
        start_frames=tuple(
            BankFrame(f"pano_bank/{i:04d}", image, random_cameras(random, 1, height=60, width=60))
            for i in range(start_frames)
        ),
        trajectories=tuple(trajectories),
    )


def random_clip(trajectory_id: str, frames: int, size: tuple[int, int] = SIZE) -> UInt8:
    """Noise frames that depend on the trajectory's name alone."""
    random = np.random.default_rng(list(trajectory_id.encode()))
    return random.integers(0, 256, (frames, *size, 3), dtype=np.uint8)


def ready(plan: ScenePlan, committed: Collection[str]) -> list[str]:
    """Trajectories not committed whose dependencies all are, in canonical order."""
    return [
        trajectory.id
        for trajectory in plan.trajectories
        if trajectory.id not in committed
        and all(other in committed for other in trajectory.depends_on)
    ]


@dataclass
class MeanColors:
    """Image features for tests: mean colours of a 3x3 grid; counts what it was asked."""

    calls: int = 0
    loads: int = field(default=0)

    def load(self) -> None:
        self.loads += 1

    def __call__(self, frame: UInt8) -> Float32:
        self.calls += 1
        rows = [part.mean(axis=(0, 1)) for part in np.array_split(frame, 3, axis=0)]
        columns = [part.mean(axis=(0, 1)) for part in np.array_split(frame, 3, axis=1)]
        return np.concatenate(rows + columns).astype(np.float32)
