"""The exact plan of a scene: what each clip retrieves, waits for and adds, before any exists.

Which bank frame serves which target depends on cameras alone, and all cameras are known when a
scene is submitted. So every trajectory is planned against the memory as it will be: the start
frames and what all canonically earlier trajectories will have added. The owners of its candidate
frames, and the trajectory whose last frame it starts from, are its exact dependencies.

Owns positions in the memory, dependencies and levels. Scores are made in retrieval.py; images are
chosen among, where a plan leaves a choice, in bank.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Literal

from pydantic import BaseModel, ConfigDict

from worldstereo.config import SceneParameters, uses_memory
from worldstereo.errors import CameraError, ParameterError
from worldstereo.formats.clips import thin
from worldstereo.memory.retrieval import (
    Frusta,
    continuity,
    first_uses,
    frusta_of,
    join_frusta,
    nearest,
    score,
    target_indices,
)
from worldstereo.types import Cameras, Float32, SceneInput, TrajectoryInput

# Scores computed in one go, unless one trajectory needs more: what a processor's cache holds.
PAIRS_PER_BATCH = 1 << 15


class TrajectoryPlan(BaseModel):
    """What one clip takes from the memory, waits for and gives to it.

    Attributes:
        id: ``view/name``.
        position: canonical position in the scene, from 0.
        level: 1 + the highest level that it depends on; 1 where it depends on nothing.
        depends_on: ids of the trajectories that must be committed before, sorted.
        bank_size: frames in the memory when it is retrieved for; its own come right behind them.
        nearest: bank id for each target 1..F-1; empty for the camera variant.
        reduced: whether more frames than allowed are candidates, so that images decide.
        references: ids of the references in order of first use; empty where reduced.
        ref_index: for each reference, (first target that uses it) - 1.
        candidate_scores: where reduced, the score without bonus of each target (rows) with each
            candidate (columns, in order of first use), so that nobody scores again.
        adds: id of each frame that it adds, with its index in the clip.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    position: int
    level: int
    depends_on: tuple[str, ...]
    bank_size: int
    nearest: tuple[str, ...]
    reduced: bool
    references: tuple[str, ...]
    ref_index: tuple[int, ...]
    candidate_scores: tuple[tuple[float, ...], ...]
    adds: tuple[tuple[str, int], ...]

    @property
    def candidates(self) -> tuple[str, ...]:
        """The distinct frames that may become references, in order of first use."""
        return first_uses(self.nearest)[0]


class ScenePlan(BaseModel):
    """The plan of a scene; made once, stored, and read by everyone else.

    Attributes:
        parameters: what it was made for.
        nframe: keyframes of a clip.
        input_sha256: of everything that the results depend on; set by whoever stores the plan.
        start_frames: ids of the frames that the memory starts from, in bank order.
        trajectories: in canonical order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    parameters: SceneParameters
    nframe: int
    input_sha256: str = ""
    start_frames: tuple[str, ...]
    trajectories: tuple[TrajectoryPlan, ...]

    def trajectory(self, trajectory_id: str) -> TrajectoryPlan:
        """The plan of this trajectory; KeyError when there is none."""
        for trajectory in self.trajectories:
            if trajectory.id == trajectory_id:
                return trajectory
        raise KeyError(trajectory_id)

    @property
    def critical_path(self) -> int:
        """Clips in the longest chain of dependencies."""
        return max((trajectory.level for trajectory in self.trajectories), default=0)


def keyframe_indices(n_frames: int, align_nframe: int) -> tuple[int, ...]:
    """Which frames of a clip enter the memory.

    Indices in 1..n_frames-1, the last one included, gaps as even as possible with the larger
    ones first.

    Args:
        n_frames: frames of the clip.
        align_nframe: how many of them enter, 1..n_frames-1.

    Raises:
        ParameterError: more are asked for than the clip has beside its start frame.
    """
    if not 1 <= align_nframe <= n_frames - 1:
        raise ParameterError(
            "a clip cannot give that many frames to the memory",
            where="align_nframe",
            got=str(align_nframe),
            allowed=f"1..{n_frames - 1} for clips of {n_frames} frames",
        )
    gap, larger = divmod(n_frames - 1, align_nframe)
    indices, index = [], 0
    for position in range(align_nframe):
        index += gap + (position < larger)
        indices.append(index)
    return tuple(indices)


def clip_indices(n_cameras: int, nframe: int) -> list[int]:
    """Which cameras of a trajectory are its clip's: all, or ``nframe`` of more, evenly thinned."""
    return [*range(n_cameras)] if n_cameras <= nframe else [int(i) for i in thin(n_cameras, nframe)]


def clip_cameras(trajectory: TrajectoryInput, nframe: int) -> Cameras:
    """The cameras of a trajectory's clip, intrinsics as stated."""
    return trajectory.cameras[clip_indices(len(trajectory.cameras), nframe)]


@dataclass(frozen=True, eq=False)
class _Bank:
    """The memory as it will be when all trajectories are committed."""

    ids: list[str]
    owners: list[str]  # trajectory that adds the frame, "" for start frames
    sizes: list[int]  # bank_size of each trajectory
    adds: list[tuple[tuple[str, int], ...]]
    frusta: Frusta
    targets: list[Frusta]  # of each trajectory, without the start frame

    @cached_property
    def owner_of(self) -> dict[str, str]:
        return dict(zip(self.ids, self.owners, strict=True))


def _planned_bank(scene: SceneInput, align_nframe: int, nframe: int) -> _Bank:
    starts, trajectories = scene.start_frames, scene.trajectories
    every = frusta_of(
        [frame.camera for frame in starts] + [trajectory.cameras for trajectory in trajectories]
    )
    ids, parts = [frame.id for frame in starts], every[: len(starts)]
    owners = [""] * len(ids)
    sizes, adds, targets = [], [], []
    for trajectory, path in zip(trajectories, every[len(starts) :], strict=True):
        clip = clip_indices(len(path), nframe)
        indices = keyframe_indices(len(clip), align_nframe)
        sizes.append(len(ids))
        adds.append(tuple((f"{trajectory.id}/{index:04d}", index) for index in indices))
        ids += [frame_id for frame_id, _ in adds[-1]]
        owners += [trajectory.id] * len(indices)
        parts.append(path[[clip[index] for index in indices]])
        targets.append(path[target_indices(len(path), nframe)[1:]])
    assert len(set(ids)) == len(ids), "frame ids of a scene must be unique"
    return _Bank(ids, owners, sizes, adds, join_frusta(parts), targets)


def _scores(bank: _Bank) -> Iterator[Float32]:
    """Scores [F - 1, bank_size] of each trajectory's targets, computed in few large batches."""
    targets, first = bank.targets, 0
    while first < len(targets):
        last, rows = first + 1, len(targets[first])
        while (
            last < len(targets)
            and (rows + len(targets[last])) * bank.sizes[last] <= PAIRS_PER_BATCH
        ):
            rows += len(targets[last])
            last += 1
        seen = bank.frusta[: bank.sizes[last - 1]]
        scores = score(join_frusta(targets[first:last]), seen).numpy()
        row = 0
        for position in range(first, last):
            yield scores[row : row + len(targets[position]), : bank.sizes[position]]
            row += len(targets[position])
        first = last


def plan_scene(scene: SceneInput, parameters: SceneParameters, nframe: int) -> ScenePlan:
    """Plan every trajectory of a scene against the memory as it will be.

    Computed from cameras alone, in float32 on the CPU. The camera variant retrieves nothing: its
    only dependency is the clip that a trajectory starts from.

    Args:
        scene: trajectories in canonical order, intrinsics in pixels of the sizes stated.
        parameters: variant, ``align_nframe`` and ``max_reference`` decide.
        nframe: keyframes of a clip.

    Returns:
        The plan, without ``input_sha256``.

    Raises:
        ParameterError: ``align_nframe`` is more than a clip can give.
    """
    bank = _planned_bank(scene, parameters.align_nframe, nframe)
    every_score = _scores(bank) if uses_memory(parameters.variant) else repeat(None)
    plans: dict[str, TrajectoryPlan] = {}
    # Not strict: ``repeat`` has no end.
    for trajectory, scores in zip(scene.trajectories, every_score, strict=False):
        if scores is None:
            retrieved = _Retrieved((), False, (), (), ())
        else:
            retrieved = _retrieve(trajectory, scores, bank, len(plans), parameters.max_reference)
        before = {bank.owner_of[frame_id] for frame_id in retrieved.nearest} - {""}
        if trajectory.starts_after is not None:
            before.add(trajectory.starts_after)
        assert before <= plans.keys(), (trajectory.id, before - plans.keys())
        plans[trajectory.id] = TrajectoryPlan(
            id=trajectory.id,
            position=len(plans),
            level=1 + max((plans[other].level for other in before), default=0),
            depends_on=tuple(sorted(before)),
            bank_size=bank.sizes[len(plans)],
            nearest=retrieved.nearest,
            reduced=retrieved.reduced,
            references=retrieved.references,
            ref_index=retrieved.ref_index,
            candidate_scores=retrieved.candidate_scores,
            adds=bank.adds[len(plans)],
        )
    return ScenePlan(
        parameters=parameters,
        nframe=nframe,
        start_frames=tuple(frame.id for frame in scene.start_frames),
        trajectories=tuple(plans.values()),
    )


@dataclass(frozen=True)
class _Retrieved:
    """The part of a ``TrajectoryPlan`` that scores decide; empty for the camera variant."""

    nearest: tuple[str, ...]
    reduced: bool
    references: tuple[str, ...]
    ref_index: tuple[int, ...]
    candidate_scores: tuple[tuple[float, ...], ...]


def _retrieve(
    trajectory: TrajectoryInput, scores: Float32, bank: _Bank, position: int, max_reference: int
) -> _Retrieved:
    owners = bank.owners[: bank.sizes[position]]
    bonus = continuity(trajectory.view, trajectory.name, owners, len(scores) + 1)
    positions = nearest(scores, bonus)
    found = tuple(bank.ids[best] for best in positions)
    references, ref_index = first_uses(found)
    if len(references) <= max_reference:
        return _Retrieved(found, False, references, ref_index, ())
    columns = [positions[row] for row in ref_index]
    candidate_scores = tuple(tuple(row) for row in scores[:, columns].tolist())
    return _Retrieved(found, True, (), (), candidate_scores)


def check_targets(scene: SceneInput, plan: ScenePlan) -> None:
    """Refuse references of targets behind the clip: every 4th of very many cameras is too many.

    A reference's place in the model is the clip's frame that uses it first.

    Raises:
        CameraError: naming the first such trajectory.
    """
    for trajectory in plan.trajectories:
        # Where images choose, any retrieved row may become the first use of a reference.
        rows = range(len(trajectory.nearest)) if trajectory.reduced else trajectory.ref_index
        if max(rows, default=0) > plan.nframe - 2:
            raise CameraError(
                "too many cameras to retrieve references for every 4th of them",
                where=trajectory.id,
                got=f"{len(scene.trajectory(trajectory.id).cameras)} cameras, of which "
                f"{len(trajectory.nearest) + 1} are targets",
                allowed=f"up to {4 * plan.nframe} cameras for clips of {plan.nframe} frames",
                fix="give fewer cameras along the path",
            )
