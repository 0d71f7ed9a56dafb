"""Scenes whose memory starts with more true pictures than their points show: photographs.

Owns where photographs are taken and the folder of such a scene. It is in the published panorama
layout, which allows several start frames; trajectories, renders and masks are those of
``write_synthetic_scene``, made from the start picture's points alone. So what the renders leave
open can be known from the memory, and from nothing else.

Each path is a view of its own, ``target0/traj_eloop``, ``target1/traj_up``, ``target2/traj_right``
and ``target3/traj_left``. Of the layout's kinds of views only ``target*`` takes trajectories of any
name in the order of their views, which keeps the canonical order, and so each clip's noise, of the
same world without photographs. The bonus of continuity goes to frames of the same view's traj0:
no view has one, so that none is given, as in the reconstruction layout.
"""

from __future__ import annotations

from pathlib import Path

from worldstereo.builder.layout import new_scene_folder, write_bank, write_json, write_renders
from worldstereo.errors import ParameterError
from worldstereo.formats.images import write_png
from worldstereo.formats.panorama import PANO_BANK, PROMPT, START_FRAME
from worldstereo.formats.scene_folder import META
from worldstereo.geometry.trajectories import FRAMES
from worldstereo.synthetic.scene_folder import path_cameras, render_paths
from worldstereo.synthetic.world import SyntheticWorld
from worldstereo.types import Cameras, concatenate_cameras

# Paths and shares of them where photographs are taken, the first ones first: where paths are
# farthest from the start, which is where most is open, then on the way there and back.
PLACES = (
    ("traj_right", 1.0),
    ("traj_left", 1.0),
    ("traj_up", 1.0),
    ("traj_eloop", 0.5),
    ("traj_right", 0.5),
    ("traj_left", 0.5),
    ("traj_up", 0.5),
    ("traj_eloop", 0.25),
    ("traj_eloop", 0.75),
)
MAX_PHOTOGRAPHS = len(PLACES)


def photograph_cameras(
    world: SyntheticWorld, count: int, size: tuple[int, int], frames: int = FRAMES
) -> Cameras:
    """The cameras of a world's photographs: the first ``count`` of ``PLACES``.

    Each stands half-way between the frame at its share of the path and the next one, at the
    path's end between the last two: no frame of a clip is itself a photograph.

    Args:
        world: in whose axes the cameras are.
        count: 1 to ``MAX_PHOTOGRAPHS``.
        size: (height, width) of the photographs.
        frames: of each path.

    Raises:
        ParameterError: more or fewer than there are places.
    """
    check_count(count)
    # Paths are even in their parameter: every second of these poses is a frame.
    between = world.paths(2 * frames - 1)
    cameras = []
    for name, share in PLACES[:count]:
        before = min(int(share * (frames - 1)), frames - 2)
        cameras.append(path_cameras(world, between[name], size)[[2 * before + 1]])
    return concatenate_cameras(cameras)


def check_count(count: int) -> None:
    """Refuse a number of photographs that there are no places for; ParameterError."""
    if not 1 <= count <= MAX_PHOTOGRAPHS:
        raise ParameterError(
            "the number of photographs is out of range",
            where="photographs",
            got=str(count),
            allowed=f"1 to {MAX_PHOTOGRAPHS}",
        )


def write_photographed_scene(
    world: SyntheticWorld,
    folder: Path,
    size: tuple[int, int],
    photographs: int,
    *,
    pictures_of: SyntheticWorld | None = None,
    frames: int = FRAMES,
) -> Path:
    """Write a world as a scene with photographs; the folder appears by one rename.

    It holds ``meta_info.json``, ``start_frame.png``, ``prompt.json``, ``pano_bank/{cameras.json,
    images/0000.png ...}``, the first being the start picture, and ``target<n>/<path>/{render.mp4,
    render_mask.mp4, camera.json}``. The same arguments give the same bytes.

    Args:
        world: from ``make_world``.
        folder: of the scene; new, or empty.
        size: (height, width) of its pictures and videos, even numbers.
        photographs: how many, 1 to ``MAX_PHOTOGRAPHS``, beside the start picture.
        pictures_of: another world whose photographs, taken by the same rule, are given out for
            this one's: the bank's cameras stay, its pictures but the first show another place.
        frames: of each video.

    Returns:
        The folder.

    Raises:
        ParameterError: the number of photographs is out of range; the folder exists, or cannot
            be made.
    """
    taken = photograph_cameras(world, photographs, size, frames)
    shown = world if pictures_of is None else pictures_of
    pictures = shown.render(photograph_cameras(shown, photographs, size, frames)).images
    start, _, renders = render_paths(world, size, frames)
    with new_scene_folder(folder) as building:
        write_json(building / META, {"scene_type": "panorama"})
        write_json(building / PROMPT, {"prompt": world.caption})
        write_png(building / START_FRAME, start)
        write_bank(
            building / PANO_BANK,
            concatenate_cameras([world.start_camera(*size), taken]),
            [start, *pictures],
        )
        for number, (name, (video, holes, cameras)) in enumerate(renders.items()):
            write_renders(building / f"target{number}" / name, video, holes, cameras)
    return folder
