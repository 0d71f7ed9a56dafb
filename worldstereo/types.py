"""The values that the engine's parts hand to each other: cameras, trajectories, clips.

Conventions, everywhere in this project: OpenCV axes (x right, y down, z forward);
``camera_from_world`` maps world to camera coordinates (w2c); intrinsics are in pixels of the
image size that the cameras state; pixel centres lie at +0.5; arrays are numpy on the CPU,
images are RGB uint8 ``[height, width, 3]``. Tensors appear only inside the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
UInt8 = NDArray[np.uint8]
Bool = NDArray[np.bool_]

Layout = Literal["single_view", "reconstruction", "panorama"]


@dataclass(frozen=True, eq=False)
class Cameras:
    """N pinhole cameras of one image size.

    Args:
        camera_from_world: [N, 4, 4] float32, rigid, OpenCV axes.
        intrinsics: [N, 3, 3] float32, pixels of ``height`` x ``width``.
        height: rows of the image that the intrinsics are stated for.
        width: its columns.
    """

    camera_from_world: Float32
    intrinsics: Float32
    height: int
    width: int

    def __post_init__(self) -> None:
        n = len(self.camera_from_world)
        assert self.camera_from_world.shape == (n, 4, 4), self.camera_from_world.shape
        assert self.intrinsics.shape == (n, 3, 3), self.intrinsics.shape

    def __len__(self) -> int:
        return len(self.camera_from_world)

    def __getitem__(self, index: slice | Sequence[int] | NDArray[np.intp]) -> Cameras:
        return Cameras(
            self.camera_from_world[index], self.intrinsics[index], self.height, self.width
        )

    def resized(self, height: int, width: int) -> Cameras:
        """The same cameras with intrinsics for images of ``height`` x ``width`` pixels."""
        scale = np.array([[width / self.width], [height / self.height], [1.0]], dtype=np.float32)
        return Cameras(self.camera_from_world, self.intrinsics * scale, height, width)


def concatenate_cameras(parts: Sequence[Cameras]) -> Cameras:
    """Join cameras of one image size into one sequence."""
    sizes = {(part.height, part.width) for part in parts}
    assert len(sizes) == 1, sizes
    return Cameras(
        np.concatenate([part.camera_from_world for part in parts]),
        np.concatenate([part.intrinsics for part in parts]),
        parts[0].height,
        parts[0].width,
    )


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Coloured points.

    Args:
        points: [P, 3] float32 in world coordinates, P >= 0.
        colors: [P, 3] uint8 RGB.
    """

    points: Float32
    colors: UInt8

    def __post_init__(self) -> None:
        assert self.points.shape == self.colors.shape == (len(self.points), 3), self.points.shape

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: slice | Bool | NDArray[np.intp]) -> PointCloud:
        return PointCloud(self.points[index], self.colors[index])


@dataclass(frozen=True, eq=False)
class BankFrame:
    """A frame that a scene's memory starts from: its id, its image file and its camera (N = 1)."""

    id: str
    image: Path
    camera: Cameras


@dataclass(frozen=True, eq=False)
class TrajectoryInput:
    """One trajectory of a scene as it was read: where its inputs lie, nothing decoded.

    Attributes:
        view, name: folder names with hyphens as underscores; ``id`` is ``view/name``.
        cameras: all N cameras as given, intrinsics in pixels of the size they state.
        prompt: the text that the clip is conditioned on.
        start_image: image file of frame 0; None when the clip starts from the last frame of
            the trajectory ``starts_after``.
        render, render_mask: the point-cloud render and its hole mask (videos); None when
            they are rendered from ``start_image`` and ``depth``.
        render_frames: frames of ``render`` and of ``render_mask``; 0 when there are none.
        depth: depth map of ``start_image`` along z in the cameras' unit, or None.
    """

    view: str
    name: str
    cameras: Cameras
    prompt: str
    start_image: Path | None
    starts_after: str | None = None
    render: Path | None = None
    render_mask: Path | None = None
    render_frames: int = 0
    depth: Path | None = None

    @property
    def id(self) -> str:
        """``view/name``, unique in the scene."""
        return f"{self.view}/{self.name}"


@dataclass(frozen=True, eq=False)
class SceneInput:
    """A scene folder that has been read and validated.

    Attributes:
        size: working size (height, width) of every generated frame.
        start_frames: the memory bank before anything is generated, in bank order.
        trajectories: in canonical order (spec of the memory bank); skipped views left out.
        skipped: views left out, with the reason.
    """

    name: str
    layout: Layout
    root: Path
    size: tuple[int, int]
    start_frames: tuple[BankFrame, ...]
    trajectories: tuple[TrajectoryInput, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def trajectory(self, trajectory_id: str) -> TrajectoryInput:
        """The trajectory with this id; KeyError when there is none."""
        for trajectory in self.trajectories:
            if trajectory.id == trajectory_id:
                return trajectory
        raise KeyError(trajectory_id)


@dataclass(frozen=True, eq=False)
class References:
    """Frames retrieved from the memory for one clip, in order of first use.

    Attributes:
        ids: bank ids, R of them.
        frames: [R, height, width, 3] uint8 at working size.
        cameras: R cameras at working size.
        ref_index: for each reference, (first target frame that uses it) - 1.
    """

    ids: tuple[str, ...]
    frames: UInt8
    cameras: Cameras
    ref_index: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Clip:
    """Everything that one clip is generated from, decoded and at working size.

    Attributes:
        trajectory_id: ``view/name``.
        prompt: text condition.
        start_image: [height, width, 3] uint8.
        render_video: [F, height, width, 3] uint8, frame 0 is the start image.
        hole_mask: [F, height, width] bool, True where nothing was rendered.
        cameras: the F keyframe cameras, intrinsics at working size.
        references: None for the camera variant.
        seed: the scene's seed.
        draw: canonical position of the clip in its scene: its noise is draw number
            ``draw`` (from 0) of a generator seeded with ``seed``.
    """

    trajectory_id: str
    prompt: str
    start_image: UInt8
    render_video: UInt8
    hole_mask: Bool
    cameras: Cameras
    references: References | None
    seed: int
    draw: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.start_image.shape[:2]
        return height, width


@dataclass(frozen=True)
class Progress:
    """Where the generation of one clip is.

    Attributes:
        stage: the stage that runs now.
        step: denoising steps done, 0 outside ``denoise`` and when it starts.
        steps: denoising steps in all, 0 outside ``denoise``.
    """

    stage: Literal["encode", "denoise", "decode"]
    step: int = 0
    steps: int = 0
