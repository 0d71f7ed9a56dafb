"""What a scene's clips will be generated from, to look at: a sheet of frames and a video.

Owns both pictures. They are made from the arrays that the model gets, at working size with the
hole masks cut as for the model, not from the builder's own: what is seen here is what is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from worldstereo.errors import ParameterError
from worldstereo.formats.atomic import temporary_sibling
from worldstereo.formats.clips import load_render, thin
from worldstereo.formats.images import read_image, resize_bicubic
from worldstereo.formats.video import write_video
from worldstereo.types import Bool, SceneInput, TrajectoryInput, UInt8

Renderer = Literal["torch", "pytorch3d"]

# Frames of each trajectory on a sheet, and how wide one is at most, in pixels.
COLUMNS, TILE_WIDTH = 7, 256
# Of the video: slow enough to see, and small.
PREVIEW_FPS, PREVIEW_WIDTH = 8, 512
LABEL_HEIGHT, GAP = 20, 4
BACKGROUND, INK = (24, 24, 24), (235, 235, 235)
# Holes are a checker of these, so that no colour of a scene is taken for one.
CHECKER = np.array([(255, 0, 255), (120, 0, 120)], dtype=np.uint8)
CHECKER_PIXELS = 8


def clip_inputs(
    trajectory: TrajectoryInput,
    size: tuple[int, int],
    nframe: int,
    *,
    renderer: Renderer = "torch",
) -> tuple[UInt8, Bool]:
    """The render and the holes that the model gets for a trajectory.

    The same arrays as ``SceneRun.prepare`` gives, except for a trajectory that starts from a
    generated frame, whose frame 0 is shown as rendered.

    Args:
        trajectory: of a scene that was read.
        size: the scene's working size (height, width).
        nframe: F, the keyframes of a clip.
        renderer: for a scene without renders.

    Returns:
        Render [F, height, width, 3] uint8 and holes [F, height, width] bool.

    Raises:
        MediaError: a file cannot be read, or its depth gives no points.
        ParameterError: the trajectory has neither renders nor depth.
    """
    if trajectory.render is not None:
        video, holes = load_render(trajectory, size, nframe)
    else:
        video, holes = _rendered(trajectory, size, nframe, renderer)
    if trajectory.starts_after is None:
        assert trajectory.start_image is not None, trajectory.id
        video[0] = resize_bicubic(read_image(trajectory.start_image), size)
        holes[0] = False
    return video, holes


def contact_sheet(
    scene: SceneInput,
    *,
    nframe: int,
    columns: int = COLUMNS,
    tile_width: int = TILE_WIDTH,
    renderer: Renderer = "torch",
) -> UInt8:
    """One row a trajectory: its name, its share of holes and frames of its render.

    Args:
        scene: that was read.
        nframe: keyframes of a clip.
        columns: frames of a row, evenly spaced with both ends; all where there are fewer.
        tile_width: pixels of a frame's width at most.
        renderer: for a scene without renders.

    Returns:
        [height, width, 3] uint8; holes are a magenta checker.

    Raises:
        MediaError: a file cannot be read.
        ParameterError: fewer than two columns, or frames of no width.
    """
    if columns < 2 or tile_width < 16:
        raise ParameterError(
            "no sheet can be made",
            where="columns, tile_width",
            got=f"{columns}, {tile_width}",
            allowed="2 columns or more, of at least 16 pixels",
        )
    height, width = scene.size
    tile = (max(1, round(height * min(1.0, tile_width / width))), min(tile_width, width))
    chosen = thin(nframe, min(columns, nframe))
    rows = []
    for trajectory in scene.trajectories:
        video, holes = clip_inputs(trajectory, scene.size, nframe, renderer=renderer)
        tiles = [_shrunk(frame, tile) for frame in painted(video[chosen], holes[chosen])]
        shares = ", ".join(f"{share:.0%}" for share in holes[chosen].mean(axis=(1, 2)))
        label = f"{trajectory.id}   holes {holes.mean():.0%} ({shares})"
        rows.append(_row(tiles, label, tile))
    return np.concatenate(rows)


def write_contact_sheet(path: Path, sheet: UInt8) -> None:
    """Write a sheet as a PNG, whole or not at all; the same sheet gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        Image.fromarray(sheet).save(temporary, format="PNG", compress_level=6)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_preview(
    path: Path,
    scene: SceneInput,
    *,
    nframe: int,
    fps: int = PREVIEW_FPS,
    width: int = PREVIEW_WIDTH,
    renderer: Renderer = "torch",
) -> None:
    """A video of all trajectories one after the other, holes as a magenta checker.

    Args:
        path: the MP4 file, H.264; it appears whole.
        scene: that was read.
        nframe: keyframes of a clip.
        fps: frames a second.
        width: pixels of a frame's width at most.
        renderer: for a scene without renders.

    Raises:
        MediaError: a file of the scene cannot be read.
    """
    scale = min(1.0, width / scene.size[1])
    # H.264 with yuv420p needs even sides.
    size = (2 * round(scene.size[0] * scale / 2), 2 * round(scene.size[1] * scale / 2))
    frames = np.stack(list(_preview_frames(scene, size, nframe, renderer)))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(path)
    try:
        write_video(temporary, frames, fps)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def painted(video: UInt8, holes: Bool) -> UInt8:
    """Frames [F, height, width, 3] with a magenta checker where ``holes`` [F, height, width]."""
    rows, columns = np.indices(holes.shape[1:]) // CHECKER_PIXELS
    pattern = np.broadcast_to(CHECKER[(rows + columns) % 2], video.shape)
    return np.where(holes[..., None], pattern, video)


def _rendered(
    trajectory: TrajectoryInput, size: tuple[int, int], nframe: int, renderer: Renderer
) -> tuple[UInt8, Bool]:
    if trajectory.start_image is None or trajectory.depth is None:
        raise ParameterError(
            "there is nothing to show",
            where=trajectory.id,
            got="neither renders nor a depth map",
            allowed="a scene with renders, or one image with its depth",
        )
    # Imported here: sheets of scenes that have renders need no torch.
    from worldstereo.depth.provided import read_depth
    from worldstereo.geometry.views import render_views

    cameras = trajectory.cameras[thin(len(trajectory.cameras), nframe)].resized(*size)
    image = read_image(trajectory.start_image)
    return render_views(image, read_depth(trajectory.depth), cameras, renderer=renderer)


def _preview_frames(
    scene: SceneInput, size: tuple[int, int], nframe: int, renderer: Renderer
) -> Iterator[UInt8]:
    for trajectory in scene.trajectories:
        video, holes = clip_inputs(trajectory, scene.size, nframe, renderer=renderer)
        for frame, hole in zip(painted(video, holes), holes, strict=True):
            picture = Image.fromarray(_shrunk(frame, size))
            _write(picture, (GAP, GAP), f"{trajectory.id}  holes {hole.mean():.0%}")
            yield np.asarray(picture, dtype=np.uint8)


def _row(tiles: list[UInt8], label: str, tile: tuple[int, int]) -> UInt8:
    height, width = tile
    sheet = Image.new(
        "RGB",
        (GAP + len(tiles) * (width + GAP), LABEL_HEIGHT + height + 2 * GAP),
        BACKGROUND,
    )
    for index, frame in enumerate(tiles):
        sheet.paste(Image.fromarray(frame), (GAP + index * (width + GAP), LABEL_HEIGHT + GAP))
    _write(sheet, (GAP, GAP), label)
    return np.asarray(sheet, dtype=np.uint8)


def _write(picture: Image.Image, place: tuple[int, int], text: str) -> None:
    """Write a line of text that fits the picture's width, on a dark ground."""
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default()
    # The built-in font may have no sign for what a folder is called.
    text = text.encode("ascii", "replace").decode()
    while draw.textlength(text, font=font) > picture.width - 2 * place[0] and len(text) > 1:
        text = text[:-1]
    box = draw.textbbox(place, text, font=font)
    draw.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=BACKGROUND)
    draw.text(place, text, font=font, fill=INK)


def _shrunk(frame: UInt8, size: tuple[int, int]) -> UInt8:
    height, width = size
    if frame.shape[:2] == (height, width):
        return frame
    resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BOX)
    return np.asarray(resized, dtype=np.uint8)
