"""One scene on disk: what each clip is generated from, and where its result goes.

Owns a scene's output folder, the order of writing in it, and the memory bank that is rebuilt
from it. Plain Python: who generates the clips, and on how many machines, is none of its business.

The folder, in the order in which its parts appear::

    plan.json                   written once, before anything is generated
    <view>/<name>/              a committed clip; appears whole, by one rename
        video.mp4 frames/%04d.png cameras.json references.json
    manifest.json               last, when the scene is finished

A process may stop at any point: what was renamed is committed, what was not never happened.
One process at a time works on a folder, and one thread at a time on a ``SceneRun``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from worldstereo.config import ModelConfig, SceneParameters, uses_memory
from worldstereo.depth.provided import read_depth
from worldstereo.errors import GenerationError, ParameterError
from worldstereo.formats.atomic import remove_leftovers
from worldstereo.formats.clips import load_render
from worldstereo.formats.images import read_image, resize_bicubic
from worldstereo.formats.manifest import MANIFEST, write_manifest
from worldstereo.formats.results import AXES, read_trajectory, write_trajectory
from worldstereo.geometry.views import render_views
from worldstereo.memory.bank import MemoryBank
from worldstereo.memory.features import ImageFeatures
from worldstereo.memory.plan import ScenePlan, clip_cameras
from worldstereo.memory.stored_plan import open_plan
from worldstereo.types import (
    Bool,
    Cameras,
    Clip,
    References,
    SceneInput,
    TrajectoryInput,
    UInt8,
)


class SceneRun:
    """A scene while it is generated: ``prepare`` clips, ``commit`` them, ``finish``.

    Use ``SceneRun.open``.

    Attributes:
        scene: its input.
        parameters: what the caller chose.
        plan: what each clip retrieves and waits for.
        output: the result folder.
    """

    def __init__(
        self,
        scene: SceneInput,
        plan: ScenePlan,
        config: ModelConfig,
        output: Path,
        bank: MemoryBank | None,
    ) -> None:
        self.scene = scene
        self.parameters = plan.parameters
        self.plan = plan
        self.output = output
        self._config = config
        self._bank = bank
        self._committed: set[str] = set()
        # Last frames of committed clips that other clips start from.
        self._last_frames: dict[str, UInt8] = {}
        # Renders made here, until their clip is committed: a retried clip need not wait again.
        self._renders: dict[str, tuple[UInt8, Bool]] = {}

    @property
    def memory_size(self) -> tuple[int, int]:
        """Images of frames in the memory, and their bytes; any thread may ask."""
        return (0, 0) if self._bank is None else self._bank.size

    @classmethod
    def open(
        cls,
        scene: SceneInput,
        parameters: SceneParameters,
        config: ModelConfig,
        output: Path,
        *,
        image_features: ImageFeatures | None = None,
    ) -> SceneRun:
        """Start a scene, or go on with one that was stopped.

        A new folder gets a plan; a folder that has one keeps it, and whatever was committed
        enters the memory again.

        Args:
            scene: the scene that was read.
            parameters: must be those that the folder was started with, if it was.
            config: of the model that generates the clips.
            output: the result folder; made where it does not exist.
            image_features: needed where more frames than ``max_reference`` are candidates.

        Returns:
            The scene, ready to ``prepare`` what depends on nothing, or on committed clips alone.
            The order of ``plan.trajectories`` respects the dependencies.

        Raises:
            ParameterError: the folder holds results of something else; parameters outside
                their range; image features are needed and not given.
            CameraError: cameras that no plan can be made for.
            CheckpointError: the image features cannot be loaded.
            MediaError: a committed clip or a start frame cannot be read.
            GenerationError: a committed clip in the folder is not of this scene.
        """
        _make_folder(output)
        plan = open_plan(scene, parameters, config, output, image_features)
        memory = uses_memory(parameters.variant)
        bank = MemoryBank(scene, plan, image_features) if memory else None
        run = cls(scene, plan, config, output, bank)
        remove_leftovers(output)
        for trajectory in plan.trajectories:
            if run.folder(trajectory.id).is_dir():
                run._remember_stored(trajectory.id)
        return run

    @property
    def committed(self) -> frozenset[str]:
        """Ids of the trajectories whose results are in the folder."""
        return frozenset(self._committed)

    def folder(self, trajectory_id: str) -> Path:
        """Where a trajectory's result is, or will be."""
        return self.output.joinpath(*trajectory_id.split("/"))

    def prepare(self, trajectory_id: str) -> Clip:
        """Everything that a trajectory's clip is generated from; the same whenever it is asked.

        Args:
            trajectory_id: all trajectories that it depends on must be committed.

        Returns:
            The clip, decoded and at working size. Frame 0 of its render is the start image,
            without holes.

        Raises:
            MediaError: an input file cannot be read, or its depth gives no points.
            MissingDependencyError: PyTorch3D was asked for and is not installed.
        """
        plan = self.plan.trajectory(trajectory_id)
        missing = [other for other in plan.depends_on if other not in self._committed]
        assert not missing, f"{trajectory_id} needs {missing}, which are not committed"
        trajectory = self.scene.trajectory(trajectory_id)
        start = self._start_image(trajectory)
        cameras = clip_cameras(trajectory, self.plan.nframe).resized(*self.scene.size)
        video, holes = self._render(trajectory, cameras)
        video, holes = video.copy(), holes.copy()
        video[0], holes[0] = start, False
        return Clip(
            trajectory_id=trajectory_id,
            prompt=trajectory.prompt,
            start_image=start,
            render_video=video,
            hole_mask=holes,
            cameras=cameras,
            references=self._references(trajectory_id),
            seed=self.parameters.seed,
            draw=plan.position,
        )

    def commit(self, trajectory_id: str, frames: UInt8, generation: Mapping[str, Any]) -> bool:
        """Put a generated clip in the folder, then in the memory.

        Args:
            trajectory_id: whose clip it is.
            frames: [F, height, width, 3] uint8 at working size.
            generation: how it was generated, for the result's own record; plain JSON values.

        Returns:
            True; False where the clip was committed before, and nothing was changed.

        Raises:
            GenerationError: the frames are of another count, size or type.
        """
        plan = self.plan.trajectory(trajectory_id)
        if trajectory_id in self._committed:
            return False
        missing = [other for other in plan.depends_on if other not in self._committed]
        assert not missing, f"{trajectory_id} needs {missing}, which are not committed"
        trajectory = self.scene.trajectory(trajectory_id)
        cameras = clip_cameras(trajectory, self.plan.nframe).resized(*self.scene.size)
        self._check_frames(trajectory_id, frames, len(cameras))
        # A finished scene that goes on, after a failure say, is not finished.
        (self.output / MANIFEST).unlink(missing_ok=True)
        wrote = write_trajectory(
            self.folder(trajectory_id),
            frames=frames,
            cameras=cameras,
            references=self._references(trajectory_id),
            generation=generation,
        )
        if not wrote:
            # Written, but stopped before it was in this memory; or another process was first.
            self._remember_stored(trajectory_id)
            return False
        self._remember(trajectory_id, frames)
        return True

    def finish(self, states: Mapping[str, str]) -> Path:
        """Write the manifest: the scene is complete, or as complete as it will be.

        Args:
            states: for each trajectory, how it ended.

        Returns:
            The manifest's path.
        """
        height, width = self.scene.size
        content = {
            "name": self.scene.name,
            "layout": self.scene.layout,
            "parameters": self.parameters.model_dump(),
            "model": self._config.model_dump(),
            "input_sha256": self.plan.input_sha256,
            "height": height,
            "width": width,
            "axes": AXES,
            "units": {"length": "as in the input cameras", "intrinsics": "pixels"},
            "start_frames": list(self.plan.start_frames),
            "trajectories": [
                {
                    "id": plan.id,
                    "position": plan.position,
                    "noise": {"seed": self.parameters.seed, "draw": plan.position},
                    "depends_on": list(plan.depends_on),
                    "status": states[plan.id],
                }
                for plan in self.plan.trajectories
            ],
            "skipped": self.scene.skipped,
            "versions": _versions(),
        }
        return write_manifest(self.output, content)

    def _references(self, trajectory_id: str) -> References | None:
        return None if self._bank is None else self._bank.references(trajectory_id)

    def _start_image(self, trajectory: TrajectoryInput) -> UInt8:
        if trajectory.starts_after is not None:
            return self._last_frames[trajectory.starts_after].copy()
        assert trajectory.start_image is not None, trajectory.id
        return resize_bicubic(read_image(trajectory.start_image), self.scene.size).copy()

    def _render(self, trajectory: TrajectoryInput, cameras: Cameras) -> tuple[UInt8, Bool]:
        """The clip's render and its holes, [F, height, width, 3] and [F, height, width]."""
        if trajectory.render is not None:
            return load_render(trajectory, self.scene.size, self.plan.nframe)
        if trajectory.id not in self._renders:
            image, depth = trajectory.start_image, trajectory.depth
            assert image is not None, trajectory.id
            assert depth is not None, f"{trajectory.id} has neither render nor depth"
            self._renders[trajectory.id] = render_from_depth(image, depth, cameras, self.parameters)
        return self._renders[trajectory.id]

    def _check_frames(self, trajectory_id: str, frames: UInt8, count: int) -> None:
        expected = (count, *self.scene.size, 3)
        if frames.shape != expected or frames.dtype != np.uint8:
            raise GenerationError(
                "the generated frames do not fit the scene",
                where=trajectory_id,
                got=f"{list(frames.shape)} {frames.dtype}",
                allowed=f"{list(expected)} uint8 (frames, height, width, RGB)",
            )

    def _remember_stored(self, trajectory_id: str) -> None:
        frames = read_trajectory(self.folder(trajectory_id)).frames
        count = len(clip_cameras(self.scene.trajectory(trajectory_id), self.plan.nframe))
        self._check_frames(trajectory_id, frames, count)
        self._remember(trajectory_id, frames)

    def _remember(self, trajectory_id: str, frames: UInt8) -> None:
        """Take a clip that is in the folder into the memory."""
        if self._bank is not None:
            self._bank.add(trajectory_id, frames)
        if any(other.starts_after == trajectory_id for other in self.scene.trajectories):
            self._last_frames[trajectory_id] = frames[-1].copy()
        self._renders.pop(trajectory_id, None)
        self._committed.add(trajectory_id)


def _make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise ParameterError(
            "the output folder cannot be made",
            where=str(output),
            got=problem.strerror or type(problem).__name__,
            allowed="a folder, or a place where one can be made",
        ) from problem


def _versions() -> dict[str, str]:
    packages = ("worldstereo-cluster", "torch", "diffusers", "transformers", "numpy", "av")
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"  # run from its folder
    return found


def render_from_depth(
    image: Path, depth: Path, cameras: Cameras, parameters: SceneParameters
) -> tuple[UInt8, Bool]:
    """Render what a start image shows of the other cameras' views.

    Args:
        image: file of the start image, which the first camera took.
        depth: file of its depth map.
        cameras: the clip's F cameras at working size.
        parameters: which renderer.

    Returns:
        Render [F, height, width, 3] uint8 and holes [F, height, width] bool at working size;
        frame 0 is the start image without holes.

    Raises:
        MediaError: the depth cannot be read, or gives too few points.
        MissingDependencyError: the renderer is not installed.
    """
    # The reader of the scene has checked that the map has the shape of the image as it was given.
    return render_views(read_image(image), read_depth(depth), cameras, renderer=parameters.renderer)
