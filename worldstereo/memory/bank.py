"""A scene's memory: the frames that clips are generated against, each in its planned place.

Owns the images of the frames that the plan says will be needed, what is computed from them once
(quality, image features), and the final choice of a clip's references. Retrieval itself was
planned in plan.py; the committed clips on disk are scene.py's.

Places are given by the plan, not by arrival: clips may be added in any order that respects their
dependencies, and the references come out the same to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from worldstereo.formats.images import read_image, resize_bicubic
from worldstereo.memory.features import ImageFeatures
from worldstereo.memory.plan import ScenePlan, TrajectoryPlan, clip_cameras
from worldstereo.memory.retrieval import first_uses
from worldstereo.memory.selection import Real, quality, select_rows
from worldstereo.types import (
    Cameras,
    Float32,
    References,
    SceneInput,
    UInt8,
    concatenate_cameras,
)


@dataclass(frozen=True, eq=False)
class Described:
    """What the images say about N frames: ``features`` [N, D] float32, ``qualities`` [N]."""

    features: Float32
    qualities: Real


def retrieved_again(
    plan: TrajectoryPlan, camera_from_world: Float32, images: Described, max_reference: int
) -> tuple[str, ...]:
    """Choose ``max_reference`` of a trajectory's retrieved rows and retrieve among them again.

    Args:
        plan: a reduced trajectory's plan, with F - 1 retrieved rows.
        camera_from_world: [F - 1, 4, 4], cameras of the retrieved frames, row by row.
        images: of the same rows.
        max_reference: how many rows are chosen.

    Returns:
        Bank id of each target 1..F-1, without bonus.
    """
    rows = select_rows(camera_from_world, images.features, images.qualities, max_reference)
    chosen = [plan.nearest[row] for row in rows]
    column = {frame_id: number for number, frame_id in enumerate(plan.candidates)}
    scores = np.array(plan.candidate_scores, dtype=np.float32)
    # In the order chosen, so that the first chosen of equals wins.
    best = scores[:, [column[frame_id] for frame_id in chosen]].argmax(axis=1)
    return tuple(chosen[number] for number in best)


class MemoryBank:
    """The memory of one scene.

    Only frames that some trajectory of the plan has as a candidate are kept as images.

    Args:
        scene: the scene's input.
        plan: its plan.
        image_features: describes frames where the plan leaves a choice to the images; may be
            None where no trajectory's plan is reduced.
    """

    def __init__(
        self, scene: SceneInput, plan: ScenePlan, image_features: ImageFeatures | None = None
    ) -> None:
        self._plan = plan
        self._size = scene.size
        self._image_features = image_features
        self._trajectories = {trajectory.id: trajectory for trajectory in plan.trajectories}
        wanted = {frame for trajectory in plan.trajectories for frame in trajectory.nearest}
        self._images: dict[str, UInt8] = {}
        self._added: set[str] = set()
        self._described: dict[str, tuple[Float32, float]] = {}
        self._cameras: dict[str, Cameras] = {}
        for start in scene.start_frames:
            if start.id in wanted:
                self._cameras[start.id] = start.camera.resized(*scene.size)
                self._images[start.id] = resize_bicubic(read_image(start.image), scene.size)
        for trajectory in scene.trajectories:
            cameras = clip_cameras(trajectory, plan.nframe).resized(*scene.size)
            for frame_id, index in self._trajectories[trajectory.id].adds:
                if frame_id in wanted:
                    self._cameras[frame_id] = cameras[[index]]
        self._wanted = wanted

    def __contains__(self, frame_id: str) -> bool:
        """Whether this frame's image is there to be a reference."""
        return frame_id in self._images

    @property
    def size(self) -> tuple[int, int]:
        """How many frames are there as images, and the bytes of these; any thread may ask."""
        images = list(self._images.values())
        return len(images), sum(image.nbytes for image in images)

    def add(self, trajectory_id: str, frames: UInt8) -> None:
        """Put a committed clip's frames in their planned places; harmless when repeated.

        Args:
            trajectory_id: whose clip it is.
            frames: [F, height, width, 3] uint8 at working size.
        """
        assert frames.shape[1:] == (*self._size, 3), frames.shape
        assert frames.dtype == np.uint8, frames.dtype
        for frame_id, index in self._trajectories[trajectory_id].adds:
            if frame_id in self._wanted:
                self._images[frame_id] = frames[index].copy()
        self._added.add(trajectory_id)

    def references(self, trajectory_id: str) -> References:
        """The references of a trajectory's clip.

        Args:
            trajectory_id: all trajectories that it depends on must have been added.

        Returns:
            References at working size, in order of first use.
        """
        plan = self._trajectories[trajectory_id]
        missing = [other for other in plan.depends_on if other not in self._added]
        assert not missing, f"{trajectory_id} needs {missing}, which are not in the memory"
        ids, ref_index = plan.references, plan.ref_index
        if plan.reduced:
            retrieved = retrieved_again(
                plan,
                np.concatenate([self._cameras[i].camera_from_world for i in plan.nearest]),
                self._describe(plan.nearest),
                self._plan.parameters.max_reference,
            )
            ids, ref_index = first_uses(retrieved)
        return References(
            ids=ids,
            frames=np.stack([self._images[frame_id] for frame_id in ids]),
            cameras=concatenate_cameras([self._cameras[frame_id] for frame_id in ids]),
            ref_index=ref_index,
        )

    def _describe(self, frame_ids: Sequence[str]) -> Described:
        """Features and quality of frames; each frame is looked at once and remembered."""
        assert self._image_features is not None, "a reduced plan needs image features"
        for frame_id in dict.fromkeys(frame_ids):
            if frame_id not in self._described:
                image = self._images[frame_id]
                # By itself, not in a batch: what a frame is described as must not depend on
                # which other frames are looked at with it.
                self._described[frame_id] = (self._image_features(image), quality(image))
        rows = [self._described[frame_id] for frame_id in frame_ids]
        return Described(
            np.stack([features for features, _ in rows]),
            np.array([quality for _, quality in rows]),
        )
