"""A world from a seed: exact images, depth, cameras and clouds.

Owns ``make_world`` and what a world can do. How it is laid out and drawn lies beside it.

A world's axes are those of its start camera: x right, y down, z forward, metres, the camera at
the origin. The start camera is level, so that y is the vertical.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from worldstereo.errors import ParameterError
from worldstereo.geometry.camera_path import CameraPath, Float64, StartPose
from worldstereo.geometry.trajectories import FRAMES
from worldstereo.synthetic.captions import caption_of
from worldstereo.synthetic.cloud import sampled_cloud, seen_cloud, seen_points
from worldstereo.synthetic.draw import Draw
from worldstereo.synthetic.layout import Layout
from worldstereo.synthetic.object_scenes import objects_scene
from worldstereo.synthetic.paths import Surroundings, free_paths, free_shares
from worldstereo.synthetic.raycast import RayCaster
from worldstereo.synthetic.rooms import furnished_room
from worldstereo.synthetic.solids import signed_distance
from worldstereo.types import Cameras, Float32, PointCloud, UInt8

Kind = Literal["room", "objects"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# What a layout is judged by: a small picture of it.
GLANCE = (36, 54)
# Mean encoded brightness, 0 to 1, that start views are exposed for.
BRIGHTNESS = 0.52
# Layouts that are tried for one seed.
ATTEMPTS = 60
# A start view is blocked where something is nearer than this, in metres.
NEAREST, SHALLOWEST = 0.9, 1.6
# What is nearer than this blocks the view on the way, in metres.
CLOSE = 0.8
# Share of a start view that its pieces, without what surrounds them, fill at least.
FILLED = 0.22


@dataclass(frozen=True, eq=False)
class SyntheticViews:
    """What F cameras see of a world.

    Attributes:
        images: [F, H, W, 3] uint8.
        depths: [F, H, W] float32 along each camera's z at pixel centres, metres, all > 0.
    """

    images: UInt8
    depths: Float32


class SyntheticWorld:
    """A procedural world. Use ``make_world``.

    Attributes:
        seed, kind: what it was made from.
        layout: what there is, in axes of its own.
        caption: short sentences that name what the start view shows.
        start_depth, start_parts: [h, w] depth of a small start view, and the layout's parts that
            it shows.
        pivot_distance: median depth of the start view within reach, in metres.
    """

    def __init__(self, seed: int, kind: Kind, layout: Layout) -> None:
        self.seed, self.kind, self.layout = seed, kind, layout
        self._casters: dict[str, RayCaster] = {}
        depth, which = self._caster("cpu").depths(self.start_camera(*GLANCE))
        self.start_depth: Float32 = depth[0].numpy()
        self.start_parts: NDArray[np.int64] = which[0].numpy()
        near = self.start_depth[self.start_depth < layout.reach]
        self.pivot_distance = round(float(np.median(near)), 4) if near.size else NEAREST
        self.caption = caption_of(layout, self.start_parts)

    @property
    def start_pose(self) -> StartPose:
        """Where all paths start: the world's origin."""
        return StartPose(np.eye(4), self.pivot_distance)

    def start_camera(self, height: int, width: int) -> Cameras:
        """The camera at the world's origin, identity, for images of ``height`` x ``width``.

        Its field of view, 60 to 75 degrees, is that of the longer side.
        """
        focal = max(height, width) / (2 * math.tan(self.layout.field_of_view / 2))
        matrix = [[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]
        return Cameras(
            np.eye(4, dtype=np.float32)[None], np.array([matrix], dtype=np.float32), height, width
        )

    def render(self, cameras: Cameras, *, samples: int = 2, device: str = "cpu") -> SyntheticViews:
        """Take pictures.

        The same call gives the same bytes on a machine's CPU, for any number of threads; a GPU or
        another processor may round a few pixels differently.

        Args:
            cameras: F pinhole cameras in free space, in the world's axes.
            samples: colours are the mean of ``samples`` x ``samples`` rays a pixel.
            device: where to compute, e.g. ``cuda``.

        Raises:
            ParameterError: samples is not positive.
        """
        if samples < 1:
            raise ParameterError(
                "a pixel needs at least one ray",
                where="samples",
                got=str(samples),
                allowed="an integer >= 1",
            )
        caster = self._caster(device)
        with torch.inference_mode():
            images = caster.images(cameras, samples, self.exposure)
            depths, _ = caster.depths(cameras)
        return SyntheticViews(images.cpu().numpy(), depths.cpu().numpy())

    def clearance(self, points: Float64) -> Float64:
        """Distances [P] to the nearest surface; negative inside solids and beyond the walls.

        Args:
            points: [P, 3] in the world.
        """
        caster = self._caster("cpu")
        moved = [(points * row).sum(axis=-1) for row in caster.layout_from_world]
        x, y, z = torch.tensor(
            np.stack(moved) + np.array(self.layout.position)[:, None], dtype=torch.float32
        )
        return signed_distance(caster.pieces, (x, y, z)).double().numpy()

    def blocked(self, path: CameraPath) -> float:
        """The largest share of any view of a path that is nearer than ``CLOSE``."""
        start = self.start_camera(18, 27)
        cameras = Cameras(path.camera_from_world, path.intrinsics(start.intrinsics[0]), 18, 27)
        depth, _ = self._caster("cpu").depths(cameras)
        return float((depth < CLOSE).double().mean(dim=(1, 2)).max())

    @cached_property
    def path_shares(self) -> dict[str, float]:
        """The share of its full extent that each path has."""
        return free_shares(self.start_pose, Surroundings(self.clearance, self.blocked))

    def paths(self, frames: int = FRAMES) -> dict[str, CameraPath]:
        """Camera paths from the start camera that keep clear of everything.

        They are the presets of the published reconstruction scenes, traj_eloop, traj_up,
        traj_right and traj_left, with smaller extents, shortened until every centre keeps its
        distance from all surfaces and nothing close by fills a view.
        """
        return free_paths(self.start_pose, self.path_shares, frames)

    def cloud(self, count: int, seed: int = 0) -> PointCloud:
        """``count`` points of the surfaces within reach, spread evenly over their area.

        Surfaces that touch each other or lie inside others have none; the sky has none.
        """
        entropy = (self.seed, KINDS.index(self.kind), seed)
        return sampled_cloud(self._caster("cpu"), count, entropy, self.exposure)

    def visible_cloud(self, cameras: Cameras) -> PointCloud:
        """What cameras see: their pixels unprojected with exact depth, within reach."""
        views = self.render(cameras)
        return seen_cloud(views.images, views.depths, cameras, self.layout.reach)

    def visible_points(self, cameras: Cameras) -> Float32:
        """The points [P, 3] of ``visible_cloud``, without the light that its colours need."""
        depths, _ = self._caster("cpu").depths(cameras)
        return seen_points(depths.numpy(), cameras, self.layout.reach)

    @cached_property
    def exposure(self) -> float:
        """The factor on the light that gives the start view its brightness."""
        camera, exposure = self.start_camera(24, 36), 1.0
        for _ in range(3):
            image = self._caster("cpu").images(camera, 1, exposure).numpy()
            # A sum of integers does not depend on its order.
            mean = int(image.astype(np.int64).sum()) / image.size / 255
            exposure = min(4.0, max(0.4, exposure * (BRIGHTNESS / max(mean, 0.05)) ** 1.6))
        # Rounded: powers are not the same to the last digit on every machine.
        return round(exposure, 4)

    def _caster(self, device: str) -> RayCaster:
        if device not in self._casters:
            self._casters[device] = RayCaster(self.layout, torch.device(device))
        return self._casters[device]


def make_world(seed: int, kind: Kind | None = None) -> SyntheticWorld:
    """The world of a seed.

    Args:
        seed: >= 0.
        kind: ``room``, furnished, or ``objects``, things on a ground under a sky; left out,
            the seed decides.

    Raises:
        ParameterError: a negative seed or an unknown kind.
    """
    if seed < 0:
        raise ParameterError(
            "a seed is not negative", where="seed", got=str(seed), allowed="an integer >= 0"
        )
    if kind is not None and kind not in KINDS:
        raise ParameterError(
            "unknown kind of world", where="kind", got=repr(kind), allowed=", ".join(KINDS)
        )
    chosen: Kind = kind or ("room" if Draw(seed).chance(0.6) else "objects")
    make = furnished_room if chosen == "room" else objects_scene
    for attempt in range(ATTEMPTS):
        world = SyntheticWorld(seed, chosen, make(Draw(seed, KINDS.index(chosen), attempt)))
        if _good(world):
            return world
    raise AssertionError(f"no layout for seed {seed} of kind {chosen}")


def _good(world: SyntheticWorld) -> bool:
    """Whether a start view is open, shows several things, and can be walked around in."""
    depth, shell = world.start_depth, len(world.layout.pieces[0].parts)
    filled = (world.start_parts >= shell).mean()
    if depth.min() < NEAREST or world.pivot_distance < SHALLOWEST or filled < FILLED:
        return False
    return min(world.path_shares.values()) > 0
