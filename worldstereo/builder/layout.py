"""Writing a scene folder in a published layout: whole or not at all, the same bytes every time.

Owns the files of one rendered trajectory, the start image's, and the folder's appearance by one
rename. What they show is the builders'.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from worldstereo.errors import MediaError, ParameterError
from worldstereo.formats.atomic import flush, flush_tree, temporary_sibling
from worldstereo.formats.canonical import reconstruction_order
from worldstereo.formats.images import resize_bicubic, write_png
from worldstereo.formats.limits import DEFAULT_LIMITS
from worldstereo.formats.reconstruction import ORDER
from worldstereo.formats.renders import CAMERAS, RENDER, RENDER_MASK
from worldstereo.formats.video import write_video
from worldstereo.types import Bool, Cameras, UInt8

# The points that the renders were made from; what the scene's point memory begins with.
START_POINTS = "points.ply"
# x264's rate factors: the model sees these frames, and masks are cut at half of the range.
RENDER_CRF, MASK_CRF = 12, 4
# Pixels of a scene's image; clips are a small part of that.
MAX_IMAGE_PIXELS = 16 * 1024 * 1024
# How many times as long as the other a side may be: the model's sizes have 1.6 at most, and what
# is longer is squeezed.
MAX_ASPECT = 4


@contextmanager
def new_scene_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` when the block ends without an error.

    Raises:
        ParameterError: the folder exists and is not empty, or cannot be made.
    """
    try:
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
        if not taken:
            folder.parent.mkdir(parents=True, exist_ok=True)
            temporary = temporary_sibling(folder)
            temporary.mkdir()
    except OSError as problem:
        raise ParameterError(
            "the scene's folder cannot be made",
            where=str(folder),
            got=problem.strerror or type(problem).__name__,
            allowed="a place where a folder can be made",
        ) from problem
    if taken:
        raise ParameterError(
            "the scene's folder exists",
            where=str(folder),
            got="a folder with something in it" if folder.is_dir() else "a file",
            allowed="a new or an empty folder",
            fix="remove it, or name another one",
        )
    try:
        yield temporary
        flush_tree(temporary)
        temporary.rename(folder)
        flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_renders(folder: Path, video: UInt8, holes: Bool, cameras: Cameras) -> None:
    """Write one trajectory's folder: render.mp4, render_mask.mp4 and camera.json.

    Args:
        folder: made here, with its parents.
        video: [F, height, width, 3] RGB, even sides.
        holes: [F, height, width] True where nothing was rendered.
        cameras: F cameras at the size of the scene's start image.
    """
    assert len(video) == len(holes) == len(cameras), (len(video), len(holes), len(cameras))
    folder.mkdir(parents=True)
    white = np.repeat(holes[..., None], 3, axis=-1).astype(np.uint8) * 255
    write_video(folder / RENDER, video, crf=RENDER_CRF)
    write_video(folder / RENDER_MASK, white, crf=MASK_CRF)
    write_json(
        folder / CAMERAS,
        {
            "extrinsic": cameras.camera_from_world.tolist(),
            "intrinsic": cameras.intrinsics.tolist(),
            "height": cameras.height,
            "width": cameras.width,
        },
    )


def write_bank(folder: Path, cameras: Cameras, pictures: Sequence[UInt8]) -> None:
    """Write the start frames of a panorama scene: ``images/0000.png`` on, and ``cameras.json``.

    Args:
        folder: ``pano_bank``, which is made.
        cameras: of the pictures, for their size.
        pictures: [H, W, 3] each.
    """
    (folder / "images").mkdir(parents=True)
    table = {}
    for number, picture in enumerate(pictures):
        name = f"{number:04d}"
        write_png(folder / "images" / f"{name}.png", picture)
        table[name] = {
            "intrinsic": cameras.intrinsics[number].tolist(),
            "extrinsic": cameras.camera_from_world[number].tolist(),
        }
    write_json(folder / "cameras.json", table)


def write_order(folder: Path, names: Sequence[str]) -> None:
    """Write order.json into the folder of the trajectories, where their names do not say it."""
    if list(reconstruction_order(names)) != list(names):
        write_json(folder / ORDER, list(names))


def write_json(path: Path, content: object) -> None:
    """Write a JSON file in UTF-8."""
    path.write_text(json.dumps(content, ensure_ascii=False) + "\n", encoding="utf-8")


def check_image_shape(image: UInt8) -> None:
    """Refuse a picture [H, W, 3] that no scene is built from: it is too small, or a strip."""
    short, long = sorted(image.shape[:2])
    if short < DEFAULT_LIMITS.min_side or long > MAX_ASPECT * short:
        raise MediaError(
            "the image's size is out of range",
            where="image",
            got=f"{image.shape[1]}x{image.shape[0]} pixels",
            allowed=f"sides of at least {DEFAULT_LIMITS.min_side}, one up to {MAX_ASPECT} times "
            "as long as the other",
        )


def limited_image(image: UInt8) -> UInt8:
    """The image itself, or a smaller one of its shape where it has too many pixels."""
    height, width = image.shape[:2]
    scale = math.sqrt(MAX_IMAGE_PIXELS / (height * width))
    if scale >= 1:
        return image
    return resize_bicubic(image, (int(height * scale), int(width * scale)))
