"""Draw what variants made of synthetic scenes: ``python -m training.contact_sheets``.

From what ``worldstereo evaluate --synthetic N --keep KEPT`` left, with a name for each column::

    python -m training.contact_sheets KEPT/scenes --out FOLDER \\
        camera-only=KEPT/results/worldstereo-camera memory=KEPT/results/worldstereo-memory-dmd

One picture a scene, ``<scene>.jpg``: for each trajectory the frame whose point render is most open
and the one half-way to it, as start image, point render, each variant and truth; below them the
pictures that the memory began with. And ``<scene>-points.jpg`` of the last variant's fused cloud,
drawn by the project's point renderer from a little above the start view. With ``--png`` both are
PNGs. The truth is rendered anew from the seed in the scene's name.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from worldstereo.evaluation.truth import ClipTruth, SceneTruth, scene_truth
from worldstereo.formats.images import read_image
from worldstereo.formats.ply import read_ply
from worldstereo.formats.results import read_trajectory
from worldstereo.formats.scene_folder import read_scene
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.trajectories import dolly, orbit
from worldstereo.geometry.views import render_cloud
from worldstereo.synthetic import SyntheticWorld, make_world
from worldstereo.types import Bool, Cameras, UInt8

# Frames of a clip that enter the memory; only the plan depends on it, and no sheet shows that.
ALIGN_NFRAME = 1
CLOUD = "points.ply"
GAP, LABEL_HEIGHT = 4, 16
BACKGROUND, INK, MISSING = (24, 24, 24), (235, 235, 235), (60, 60, 60)
JPEG_QUALITY = 92
# The cloud's view: how far around and above the start view in degrees, how far back as a share of
# the pivot distance, and its shorter side in pixels.
AROUND, ABOVE, BACK, CLOUD_SIDE = 12.0, 12.0, 0.15, 480

# A row: what it is, and a picture or none for each column.
Row = tuple[str, Sequence[UInt8 | None]]


def chosen_frames(holes: Bool) -> list[int]:
    """The frame with the largest share of holes, and the one half-way to it.

    Args:
        holes: [F, H, W] of a point render.
    """
    most = int(holes.mean(axis=(1, 2)).argmax())
    return sorted({max(1, most // 2), max(1, most)})


def clip_rows(clip: ClipTruth, start: UInt8, made: Sequence[UInt8 | None]) -> list[Row]:
    """The rows of one trajectory.

    Args:
        clip: its truth and its point render.
        start: [H, W, 3] start image.
        made: for each variant [F, H, W, 3], or None where it has no such clip.
    """
    rows: list[Row] = []
    for frame in chosen_frames(clip.holes):
        label = f"{clip.id}  frame {frame} of {len(clip.images) - 1}"
        label += f"  holes {clip.holes[frame].mean():.0%}"
        shown = [None if frames is None else frames[frame] for frames in made]
        rows.append((label, [start, clip.render[frame], *shown, clip.images[frame]]))
    return rows


def bank_rows(pictures: Sequence[UInt8], columns: int) -> list[Row]:
    """The pictures that the memory began with, in as many rows as they need."""
    rows: list[Row] = []
    for first in range(0, len(pictures), columns):
        part = list(pictures[first : first + columns])
        rows.append(("the memory began with" if first == 0 else "", part))
    return rows


def draw_sheet(title: str, columns: Sequence[str], rows: Sequence[Row]) -> Image.Image:
    """A sheet: the title, the columns' names, and each row below its label."""
    first = next(picture for _, pictures in rows for picture in pictures if picture is not None)
    height, width = first.shape[:2]
    step = LABEL_HEIGHT + height + GAP
    sheet = Image.new(
        "RGB",
        (GAP + len(columns) * (width + GAP), 2 * LABEL_HEIGHT + len(rows) * step),
        BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default()
    while draw.textlength(title, font=font) > sheet.width - 2 * GAP:
        title = title.removesuffix("...")[:-1] + "..."
    draw.text((GAP, 2), title, font=font, fill=INK)
    for number, name in enumerate(columns):
        draw.text((GAP + number * (width + GAP), LABEL_HEIGHT + 2), name, font=font, fill=INK)
    for row, (label, pictures) in enumerate(rows):
        top = 2 * LABEL_HEIGHT + row * step
        draw.text((GAP, top + 2), label, font=font, fill=INK)
        for number, picture in enumerate(pictures):
            place = (GAP + number * (width + GAP), top + LABEL_HEIGHT)
            if picture is None:
                draw.rectangle((*place, place[0] + width - 1, place[1] + height - 1), fill=MISSING)
                draw.text((place[0] + GAP, place[1] + GAP), "no clip", font=font, fill=INK)
            else:
                sheet.paste(Image.fromarray(picture), place)
    return sheet


def draw_cloud(world: SyntheticWorld, truth: SceneTruth, file: Path) -> Image.Image:
    """A fused cloud of a scene's results, from a little above the start view."""
    cloud = read_ply(file)
    start = StartPose(world.start_pose.camera_from_world, world.pivot_distance)
    raised = orbit(start, AROUND, ABOVE, 2).end(world.pivot_distance)
    view = dolly(raised, -BACK, 2)
    scale = CLOUD_SIDE / min(truth.start.height, truth.start.width)
    size = (round(scale * truth.start.height), round(scale * truth.start.width))
    intrinsics = view.intrinsics(world.start_camera(*size).intrinsics[0])
    cameras = Cameras(view.camera_from_world, intrinsics, *size)[[1]]
    points = truth.in_world(cloud.points).astype(np.float32)
    colors = cloud.colors.astype(np.float32) / 127.5 - 1
    pictures, _ = render_cloud(torch.from_numpy(points), torch.from_numpy(colors), cameras)
    return Image.fromarray(pictures[0])


def read_truth(scene: Path, results: Sequence[Path]) -> tuple[SyntheticWorld, SceneTruth]:
    """A kept scene's world and truth; the size and frames are those of its first clip."""
    clips = [
        clip for folder in results for clip in sorted((folder / scene.name).glob("*/*/frames"))
    ]
    if not clips:
        raise SystemExit(f"{scene.name}: no clip of it in {', '.join(map(str, results))}")
    name, _, seed = scene.name.rpartition("-")
    if name != "synthetic" or not seed.isdigit():
        raise SystemExit(f"{scene}: is called synthetic-<seed> where evaluate made it")
    nframe, height, width, _ = read_trajectory(clips[0].parent).frames.shape
    world = make_world(int(seed))
    truth = scene_truth(
        world, scene, scale_map=[(height, width)], nframe=nframe, align_nframe=ALIGN_NFRAME
    )
    return world, truth


def write_sheets(
    scene: Path, variants: Mapping[str, Path], out: Path, suffix: str = ".jpg"
) -> list[Path]:
    """Draw one scene.

    Args:
        scene: its folder.
        variants: name of each column -> folder of results, with a folder of the scene's name.
        out: where the pictures go.
        suffix: says in which format.

    Returns:
        The files that were written.
    """
    world, truth = read_truth(scene, list(variants.values()))
    columns = ("start image", "point render", *variants, "truth")
    rows: list[Row] = []
    for clip in truth.clips.values():
        folders = [folder / scene.name / clip.id for folder in variants.values()]
        made = [read_trajectory(place).frames if place.is_dir() else None for place in folders]
        rows += clip_rows(clip, truth.start_image, made)
    bank = read_scene(
        scene,
        scale_map=[truth.start_image.shape[:2]],
        nframe=len(next(iter(truth.clips.values())).images),
        align_nframe=ALIGN_NFRAME,
    ).start_frames
    if len(bank) > 1:
        rows += bank_rows([read_image(frame.image) for frame in bank], len(columns))
    out.mkdir(parents=True, exist_ok=True)
    files = [out / f"{scene.name}{suffix}"]
    draw_sheet(f"{scene.name}: {world.caption}", columns, rows).save(files[0], quality=JPEG_QUALITY)
    cloud = list(variants.values())[-1] / scene.name / CLOUD
    if cloud.is_file():
        files.append(out / f"{scene.name}-points{suffix}")
        draw_cloud(world, truth, cloud).save(files[1], quality=JPEG_QUALITY)
    return files


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Contact sheets of kept synthetic scenes.")
    parser.add_argument("scenes", type=Path, help="folder of scene folders: KEPT/scenes")
    parser.add_argument("variants", nargs="+", metavar="NAME=RESULTS", help="columns, in order")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--first", type=int, help="so many scenes; default: all")
    parser.add_argument("--png", action="store_true", help="lossless; four times as large")
    chosen = parser.parse_args(arguments)
    pairs = [text.partition("=") for text in chosen.variants]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        parser.error(f"{wrong[0]}: write NAME=RESULTS, such as memory={wrong[0]}")
    variants = {name: Path(folder) for name, _, folder in pairs}
    suffix = ".png" if chosen.png else ".jpg"
    for scene in sorted(chosen.scenes.iterdir())[: chosen.first]:
        for file in write_sheets(scene, variants, chosen.out, suffix):
            print(file)


if __name__ == "__main__":
    main()
