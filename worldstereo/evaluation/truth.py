"""What a synthetic scene really looks like at every camera that was commanded.

Owns the exact pictures and depths of a scene's clips, the point renders that the model was
given, and which holes of them a reference frame sees. Scenes are read from their folders as the
cluster reads them; only the truth comes from the world itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from worldstereo.config import SceneParameters
from worldstereo.evaluation.visibility import Float64, View, seen_by_any, views_of
from worldstereo.formats.clips import load_render
from worldstereo.formats.scene_folder import read_scene
from worldstereo.memory.plan import ScenePlan, clip_cameras, plan_scene
from worldstereo.types import (
    Bool,
    Cameras,
    Float32,
    SceneInput,
    UInt8,
    concatenate_cameras,
)


class Views(Protocol):
    """Exact views: ``images`` [F, H, W, 3] uint8 and ``depths`` [F, H, W] float32 along z."""

    @property
    def images(self) -> UInt8:
        """[F, H, W, 3]."""
        ...

    @property
    def depths(self) -> Float32:
        """[F, H, W], 0 where there is nothing."""
        ...


class World(Protocol):
    """What is used of ``worldstereo.synthetic``'s worlds."""

    @property
    def seed(self) -> int:
        """What the world was made from."""
        ...

    @property
    def kind(self) -> str:
        """``room`` or ``objects``."""
        ...

    @property
    def caption(self) -> str:
        """A sentence that describes it."""
        ...

    def start_camera(self, height: int, width: int) -> Cameras:
        """The camera (N = 1) that takes the start image."""
        ...

    def render(self, cameras: Cameras) -> Views:
        """Exact views of cameras in the world."""
        ...

    def visible_points(self, cameras: Cameras) -> Float32:
        """Points [P, 3] of the surfaces that at least one of the cameras sees."""
        ...


@dataclass(frozen=True, eq=False)
class ClipTruth:
    """One trajectory's clip: what it should show, and what the model was given.

    Attributes:
        id: ``view/name``.
        cameras: F commanded cameras in the world, at working size.
        images: [F, H, W, 3] exact pictures.
        depths: [F, H, W] their exact depth along z.
        render: [F, H, W, 3] the point render as the model gets it; frame 0 is the start image.
        holes: [F, H, W] where it is open; frame 0 has none.
    """

    id: str
    cameras: Cameras
    images: UInt8
    depths: Float32
    render: UInt8
    holes: Bool

    @cached_property
    def views(self) -> list[View]:
        """Each camera with its depth."""
        return views_of(self.cameras, self.depths)


@dataclass(frozen=True, eq=False)
class SceneTruth:
    """One synthetic scene.

    Attributes:
        name: of its folder.
        world_from_scene: [4, 4] rigid, from the coordinates of the scene's folder and results.
        start: the start camera in the world, N = 1, at working size.
        start_image: [H, W, 3] exact picture there.
        start_depth: [H, W] and its depth.
        bank: by id, what the cameras of the frames see that the memory starts from.
        clips: by id, in canonical order.
        plan: the memory's plan; decides which frames are candidates for references.
    """

    name: str
    world_from_scene: Float64
    start: Cameras
    start_image: UInt8
    start_depth: Float32
    bank: Mapping[str, View]
    clips: Mapping[str, ClipTruth]
    plan: ScenePlan

    @property
    def median_depth(self) -> float:
        """Of the start image, in scene units."""
        return float(np.median(self.start_depth[self.start_depth > 0]))

    def every_camera(self) -> Cameras:
        """All commanded cameras of all clips, in the world."""
        return concatenate_cameras([clip.cameras for clip in self.clips.values()])

    def seen_holes(self, clip_id: str, frame_ids: Sequence[str]) -> Bool:
        """Holes [F, H, W] of a clip's render that at least one of these bank frames sees.

        Args:
            clip_id: whose render.
            frame_ids: start frames and ``view/name/index`` of earlier clips.
        """
        clip = self.clips[clip_id]
        return seen_by_any(clip.views, clip.holes, [self._bank_view(name) for name in frame_ids])

    def in_world(self, points: Float32) -> Float64:
        """Points [P, 3] of the results in the world."""
        turn, shift = self.world_from_scene[:3, :3], self.world_from_scene[:3, 3]
        return np.asarray(points.astype(np.float64) @ turn.T + shift)

    def _bank_view(self, frame_id: str) -> View:
        if frame_id in self.bank:
            return self.bank[frame_id]
        clip_id, _, index = frame_id.rpartition("/")
        return self.clips[clip_id].views[int(index)]


def scene_truth(
    world: World,
    folder: Path,
    *,
    scale_map: Sequence[tuple[int, int]],
    nframe: int,
    align_nframe: int,
) -> SceneTruth:
    """Read a synthetic scene's folder and render its truth.

    Every trajectory starts from the start camera, which ties the folder's coordinates to the
    world's, whatever the writer of the folder chose them to be.

    Args:
        world: that the scene was made from.
        folder: of the scene.
        scale_map: working sizes of the model.
        nframe: keyframes of a clip.
        align_nframe: frames of each clip that enter the memory.

    Raises:
        InputError: the folder is no scene.
    """
    scene = read_scene(folder, scale_map=scale_map, nframe=nframe, align_nframe=align_nframe)
    start = world.start_camera(*scene.size)
    first = scene.trajectories[0].cameras.camera_from_world[0].astype(np.float64)
    world_from_scene = np.linalg.inv(start.camera_from_world[0].astype(np.float64)) @ first
    scene_from_world = np.linalg.inv(world_from_scene)
    clips = {}
    for trajectory in scene.trajectories:
        given = clip_cameras(trajectory, nframe).resized(*scene.size)
        cameras = _moved(given, scene_from_world)
        views = world.render(cameras)
        render, holes = load_render(trajectory, scene.size, nframe)
        render, holes = render.copy(), holes.copy()
        render[0], holes[0] = views.images[0], False
        clips[trajectory.id] = ClipTruth(
            trajectory.id, cameras, views.images, views.depths, render, holes
        )
    parameters = SceneParameters(variant="worldstereo-memory", align_nframe=align_nframe)
    taken = world.render(start)
    return SceneTruth(
        name=scene.name,
        world_from_scene=world_from_scene,
        start=start,
        start_image=taken.images[0],
        start_depth=taken.depths[0],
        bank=_bank(world, scene, start, scene_from_world),
        clips=clips,
        plan=plan_scene(scene, parameters, nframe),
    )


def _bank(
    world: World, scene: SceneInput, start: Cameras, scene_from_world: Float64
) -> dict[str, View]:
    """What the cameras of the memory's first frames see of this world, whatever they show."""
    views = {}
    for frame in scene.start_frames:
        camera = start
        # Other layouts have one start frame, which by the format's rule is said to be taken from
        # the folder's origin, wherever its trajectories start.
        if scene.layout == "panorama":
            camera = _moved(frame.camera.resized(*scene.size), scene_from_world)
        views[frame.id] = views_of(camera, world.render(camera).depths)[0]
    return views


def _moved(cameras: Cameras, scene_from_world: Float64) -> Cameras:
    """Cameras of the scene's folder in the world."""
    poses = cameras.camera_from_world.astype(np.float64) @ scene_from_world
    return Cameras(poses.astype(np.float32), cameras.intrinsics, cameras.height, cameras.width)
