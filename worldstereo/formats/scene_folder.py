"""A scene folder in: which published layout it is in, decided by what is there, and all its checks.

Owns telling the layouts apart and what scenes of all layouts have in common. Each layout's own
files are read by the module that is named after it. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from worldstereo.errors import LayoutError, ParameterError
from worldstereo.formats.canonical import view_kind
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.panorama import PANO_BANK, read_panorama
from worldstereo.formats.reconstruction import RENDERS, read_perspective, read_reconstruction
from worldstereo.formats.renders import StartImage, view_folders
from worldstereo.formats.scene_files import SceneFiles, describe_json
from worldstereo.formats.single_view import read_single_view
from worldstereo.types import BankFrame, Layout, SceneInput, TrajectoryInput

LAYOUTS: tuple[Layout, ...] = get_args(Layout)
TASK_TYPES = ("auto", *LAYOUTS)
META, RESULTS = "meta_info.json", "render_results"
# The one start frame of every scene that is no panorama.
START_FRAME_ID = "renders/pano_bank/image.png"

# Views at the root or in render_results: a panorama, or the README's perspective form.
Form = Literal["single_view", "reconstruction", "views", "render_results"]


def working_size(height: int, width: int, scale_map: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The size that an image is generated at.

    Args:
        height: rows of the image.
        width: its columns.
        scale_map: sizes [height, width] to choose from.

    Returns:
        The pair with the smallest |height / width - h / w|, the first on a tie.
    """
    return min(scale_map, key=lambda size: abs(height / width - size[0] / size[1]))


def read_scene(
    folder: Path,
    *,
    scale_map: Sequence[tuple[int, int]],
    nframe: int,
    align_nframe: int = 8,
    task_type: str = "auto",
    depth: Path | None = None,
    needs_depth: bool = True,
    limits: Limits = DEFAULT_LIMITS,
) -> SceneInput:
    """Read a scene folder and check everything in it: images and videos are decoded to the end.

    Args:
        folder: in one of the published layouts.
        scale_map: working sizes [height, width] of the model.
        nframe: keyframes of a clip.
        align_nframe: frames of each clip that will enter the memory, 1 to nframe - 1.
        task_type: the layout that the folder must have; ``auto`` takes any.
        depth: depth map of a single view's image, instead of the folder's own.
        needs_depth: refuse a single view without a depth map; else its depth is None.
        limits: bounds that are checked before decoding.

    Returns:
        The scene, trajectories in canonical order.

    Raises:
        ParameterError: unknown task_type, one that contradicts the folder, align_nframe out of
            range, a depth map for a scene that has renders.
        LayoutError: the folder is in no layout, in two at once, or lacks a file.
        CameraError, MediaError, PromptError: a file cannot be used.
    """
    check_parameters(nframe, align_nframe, task_type)
    files = SceneFiles.open(folder, limits)
    layout, views_in = _layout(files)
    _check_fits(layout, task_type, depth)
    skipped: dict[str, str] = {}
    if layout == "panorama":
        bank, trajectories, skipped, image_size = read_panorama(files, views_in, nframe=nframe)
    else:
        if layout == "single_view":
            start, trajectories = read_single_view(
                files, nframe=nframe, depth=depth, needs_depth=needs_depth
            )
        elif views_in == RENDERS:
            start, trajectories, skipped = read_reconstruction(files, nframe=nframe)
        else:
            start, trajectories, skipped = read_perspective(files, views_in, nframe=nframe)
        bank, image_size = (_start_frame(start, trajectories[0]),), start.size
    return SceneInput(
        name=files.root.name or "scene",
        layout=layout,
        root=files.root,
        size=working_size(*image_size, scale_map),
        start_frames=bank,
        trajectories=tuple(trajectories),
        skipped=skipped,
    )


def check_parameters(nframe: int, align_nframe: int, task_type: str) -> None:
    """Check what can be checked without a folder; ParameterError otherwise."""
    if task_type not in TASK_TYPES:
        raise ParameterError(
            "unknown task type",
            where="task_type",
            got=repr(task_type),
            allowed=", ".join(TASK_TYPES),
        )
    if not 1 <= align_nframe <= nframe - 1:
        raise ParameterError(
            "the number of frames that enter the memory is out of range",
            where="align_nframe",
            got=str(align_nframe),
            allowed=f"1 to {nframe - 1}: a clip has {nframe} frames and its first is known",
        )


def _check_fits(layout: Layout, task_type: str, depth: Path | None) -> None:
    if task_type not in ("auto", layout):
        raise ParameterError(
            "the folder is in another layout",
            where="task_type",
            got=f"{task_type!r} for a {layout} folder",
            allowed=f"auto or {layout}",
        )
    if depth is not None and layout != "single_view":
        raise ParameterError(
            "a depth map is for single-view scenes",
            where="depth",
            got=f"{depth.name} for a {layout} folder, which has renders",
            allowed="no depth map",
        )


def _start_frame(start: StartImage, first: TrajectoryInput) -> BankFrame:
    """The memory's start: the start image at the world's origin, with the first clip's camera."""
    camera = first.cameras[[0]]
    identity = np.eye(4, dtype=np.float32)[None]
    return BankFrame(
        START_FRAME_ID,
        start.path,
        type(camera)(identity, camera.intrinsics, camera.height, camera.width),
    )


def _layout(files: SceneFiles) -> tuple[Layout, str]:
    """The layout of a folder, and the folder in it that holds the views or trajectories."""
    found = _forms(files)
    if len(found) > 1:
        raise LayoutError(
            "the folder is in two layouts at once",
            where=files.root.name,
            got="; ".join(f"{form} ({what})" for form, what in found.items()),
            allowed="the files of one layout",
            fix="move the files of the other layout out of the folder",
        )
    if not found:
        raise LayoutError(
            "the folder is in no published layout",
            where=files.root.name,
            got=_listing(files),
            allowed="image.png with prompt.json and camera.json (single view), image.png with "
            "prompt.json and renders/<traj>/ (reconstruction), or pano_bank/ with "
            "<view>/<traj>/ (panorama)",
        )
    form = next(iter(found))
    scene_type = _scene_type(files)
    banks = [name for name in (PANO_BANK, f"{RESULTS}/{PANO_BANK}") if files.has_folder(name)]
    views = form in ("views", "render_results")
    looks_so = form == "views" or bool(banks)
    panorama = looks_so if scene_type is None else scene_type == "panorama"
    if (panorama and not views) or (banks and not panorama):
        signs = dict.fromkeys([*found[form].split(", "), *(f"{name}/" for name in banks)])
        raise LayoutError(
            f"{META} contradicts the folder",
            where=f"{META}: scene_type",
            got=f"{scene_type!r} for a folder with {', '.join(signs)}",
            allowed="'panorama' for pano_bank/ and views, 'perspective' for one start image",
        )
    if form == "single_view":
        return "single_view", "."
    if form == "reconstruction":
        return "reconstruction", RENDERS
    return "panorama" if panorama else "reconstruction", "." if form == "views" else RESULTS


def _forms(files: SceneFiles) -> dict[Form, str]:
    """Forms that the folder shows signs of, with the signs."""
    found: dict[Form, str] = {}
    if files.has_file("camera.json"):
        found["single_view"] = "camera.json"
    if files.has_folder("renders"):
        found["reconstruction"] = "renders/"
    signs = [f"{name}/" for name in view_folders(files, ".") if view_kind(name) is not None]
    if files.has_folder(RESULTS):
        found["render_results"] = f"{RESULTS}/"
    elif files.has_folder(PANO_BANK):
        signs.insert(0, f"{PANO_BANK}/")
    if signs:
        found["views"] = ", ".join(signs[:5])
    return found


def _listing(files: SceneFiles) -> str:
    entries = [*(f"{name}/" for name in files.folders()), *files.files()]
    shown = ", ".join(entries[:8]) + (f" and {len(entries) - 8} more" if len(entries) > 8 else "")
    return shown or "an empty folder"


def _scene_type(files: SceneFiles) -> str | None:
    if not files.has_file(META):
        return None
    value = files.read_object(META, LayoutError).get("scene_type")
    if value not in ("perspective", "panorama"):
        raise LayoutError(
            "unknown scene type",
            where=f"{META}: scene_type",
            got=describe_json(value),
            allowed="'perspective' or 'panorama'",
        )
    return str(value)
