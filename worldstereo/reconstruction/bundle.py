"""A finished scene in the formats that other programs open, beside its results.

Owns which files there are, where they lie in a scene's result folder, and what each needs; how a
format is written is the business of its module in ``worldstereo.formats``::

    points.ply                  PLY: coloured points
    points.glb                  the same for programs that show glTF, upright
    colmap/, colmap/text/       COLMAP model, binary and text
    transforms.json             nerfstudio; sparse_pc.ply: the points in its world
    cameras_inria.json          Inria's programs, SuperSplat
    blender/                    animated cameras and the script that makes them
    depth/<view>/<name>/        depth of every frame
    world_mirror_data/<model>/  what WorldMirror reads
    start_frames/               images that some of the above refer to

All lie in the world axes of the scene's cameras, but for those that say otherwise (GLB, Blender,
transforms.json). Images are referred to by their path in the result folder. Each file appears
whole, by one rename, and the same scene gives the same bytes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np

from worldstereo.errors import LayoutError, ParameterError
from worldstereo.formats.atomic import atomic_write_text, temporary_sibling
from worldstereo.formats.blender_cameras import write_blender_cameras
from worldstereo.formats.colmap import write_colmap
from worldstereo.formats.colmap_tracks import observations
from worldstereo.formats.depth_maps import write_depth_maps
from worldstereo.formats.glb import write_glb
from worldstereo.formats.images import resize_bicubic
from worldstereo.formats.inria_cameras import write_inria_cameras
from worldstereo.formats.manifest import (
    MANIFEST,
    ManifestFile,
    read_manifest,
    sha256_of,
    to_json,
)
from worldstereo.formats.ply import write_ply
from worldstereo.formats.results import frame_path
from worldstereo.formats.transforms_json import to_nerfstudio_world, write_transforms
from worldstereo.formats.upright import Up
from worldstereo.formats.video import FPS
from worldstereo.formats.worldmirror import camera_id, worldmirror_files
from worldstereo.memory.plan import keyframe_indices
from worldstereo.reconstruction.result_clips import (
    DEPTHS,
    BundleClip,
    StartFrame,
    start_frame_name,
    write_start_frames,
)
from worldstereo.types import Cameras, Float32, PointCloud, concatenate_cameras

__all__ = ["NEEDS_POINTS", "OUTPUTS", "BundleClip", "Output", "add_to_manifest", "write_bundle"]

Output = Literal[
    "points", "glb", "colmap", "transforms", "inria", "blender", "depth", "worldmirror"
]
OUTPUTS: tuple[Output, ...] = get_args(Output)
NEEDS_POINTS: tuple[Output, ...] = ("points", "glb")
_SHOWS_IMAGES: tuple[Output, ...] = ("colmap", "transforms", "inria", "worldmirror")

POINTS, POINTS_GLB = "points.ply", "points.glb"
COLMAP, TRANSFORMS, INRIA, BLENDER = "colmap", "transforms.json", "cameras_inria.json", "blender"
NERFSTUDIO_POINTS = "sparse_pc.ply"
WORLDMIRROR = "world_mirror_data"
# A COLMAP model of more points takes minutes and is slow to open; it gets this many, evenly spread
# over the cloud, whose whole is points.ply.
MAX_COLMAP_POINTS = 200_000
# Frames of a clip that enter the memory where nothing else is said.
KEYFRAMES = 8


@dataclass(frozen=True, eq=False)
class _Bundle:
    """What is written: a scene whose images are all in its folder and of one size."""

    folder: Path
    clips: Sequence[BundleClip]
    cloud: PointCloud | None
    start_frames: Sequence[StartFrame]
    metric: bool
    up: Up
    scene_name: str
    model_type: str

    @property
    def names(self) -> list[str]:
        """The images, by their paths in the folder: start frames, then the clips in order."""
        names = [start_frame_name(frame_id) for frame_id, _, _ in self.start_frames]
        for clip in self.clips:
            names += [_frame_name(clip.id, index) for index in range(len(clip.cameras))]
        return names

    @property
    def cameras(self) -> Cameras:
        """The cameras of ``names``."""
        starts = [camera for _, _, camera in self.start_frames]
        return concatenate_cameras([*starts, *(clip.cameras for clip in self.clips)])

    @property
    def depths(self) -> list[Float32 | None]:
        """The depths of ``names``, None where there is none."""
        depths: list[Float32 | None] = [None] * len(self.start_frames)
        for clip in self.clips:
            depths += [None] * len(clip.cameras) if clip.depths is None else list(clip.depths)
        return depths


def write_bundle(
    folder: Path,
    outputs: Collection[Output],
    clips: Sequence[BundleClip],
    *,
    cloud: PointCloud | None,
    start_frames: Sequence[StartFrame],
    metric: bool,
    up: Up = "-y",
    scene_name: str | None = None,
    model_type: str = "worldstereo-memory-dmd",
) -> list[Path]:
    """Write a scene in other programs' formats; files that are there are replaced.

    Args:
        folder: the scene's result folder, which holds the clips.
        outputs: what to write.
        clips: the committed clips in canonical order, at least one, all of one image size.
        cloud: the scene's points in the world of the cameras; None where there are none.
        start_frames: the frames that the memory began with: id, image [h, w, 3], and the one
            camera that took it. They are brought to the size of the clips.
        metric: whether the unit of the cameras and points is the metre.
        up: the direction upwards in the scene's world: ``-y``, or ``z`` in panorama scenes.
        scene_name: what WorldMirror's name map calls the scene; default: the folder's name.
        model_type: the variant that made the clips; WorldMirror's files lie under its name.

    Returns:
        Every file that was written, in the order of ``OUTPUTS``.

    Raises:
        ParameterError: no clips, or an output that needs points or depth that there are not.
        LayoutError: a frame of a clip is not in the folder.
        CameraError: cameras that a format cannot hold.
        MissingDependencyError: a package that an output needs is not installed.
    """
    _check(folder, outputs, clips, cloud)
    size = clips[0].cameras.height, clips[0].cameras.width
    bundle = _Bundle(
        folder=folder,
        clips=clips,
        cloud=cloud,
        start_frames=[
            (frame_id, resize_bicubic(image, size), camera.resized(*size))
            for frame_id, image, camera in start_frames
        ],
        metric=metric,
        up=up,
        scene_name=folder.resolve().name if scene_name is None else scene_name,
        model_type=model_type,
    )
    written: list[Path] = []
    if bundle.start_frames and not set(outputs).isdisjoint(_SHOWS_IMAGES):
        written += write_start_frames(folder, bundle.start_frames)
    for output in OUTPUTS:
        if output in outputs:
            written += _WRITERS[output](bundle)
    return written


def add_to_manifest(folder: Path, files: Collection[Path]) -> None:
    """List files that were written into a finished result folder in its manifest.

    What the manifest says about all other files stays as it is.

    Raises:
        LayoutError: the folder has no manifest, or it is not ours.
    """
    content, listed = read_manifest(folder)
    entries = {file.name: file for file in listed}
    for path in files:
        name = path.relative_to(folder).as_posix()
        entries[name] = ManifestFile(name=name, bytes=path.stat().st_size, sha256=sha256_of(path))
    content["files"] = [entries[name].model_dump() for name in sorted(entries)]
    atomic_write_text(folder / MANIFEST, to_json(content))


def _check(
    folder: Path,
    outputs: Collection[Output],
    clips: Sequence[BundleClip],
    cloud: PointCloud | None,
) -> None:
    """Refuse before anything is written."""
    unknown = sorted(set(outputs) - set(OUTPUTS))
    if unknown:
        raise ParameterError(
            "unknown output", where="outputs", got=", ".join(unknown), allowed=", ".join(OUTPUTS)
        )
    if not clips:
        raise ParameterError("there are no clips to write", where="clips", got="none")
    sizes = {(clip.cameras.height, clip.cameras.width) for clip in clips}
    assert len(sizes) == 1, sizes
    lacking = [output for output in NEEDS_POINTS if output in outputs]
    if lacking and (cloud is None or not len(cloud)):
        raise ParameterError(
            "there are no points to write",
            where=f"output {lacking[0]}",
            got="no cloud" if cloud is None else "0 points",
            fix="have the scene's clips fused into points first, which needs their depth",
        )
    if "depth" in outputs and all(clip.depths is None for clip in clips):
        raise ParameterError(
            "there is no depth to write",
            where="output depth",
            got="no clip with depth",
            fix="have the depth of the scene's clips estimated first",
        )
    for clip in clips:
        for index in range(len(clip.cameras)):
            if not (folder / _frame_name(clip.id, index)).is_file():
                raise LayoutError(
                    "a frame is missing",
                    where=str(folder / _frame_name(clip.id, index)),
                    got="no such file",
                    allowed="the clips' folders below the scene's result folder",
                )


def _frame_name(clip_id: str, index: int) -> str:
    return frame_path(Path(*clip_id.split("/")), index).as_posix()


def _unit(bundle: _Bundle) -> str:
    return "unit: " + ("metre" if bundle.metric else "that of the scene's cameras")


def _write_points(bundle: _Bundle) -> list[Path]:
    assert bundle.cloud is not None
    path = bundle.folder / POINTS
    axes = "axes: OpenCV, y down" if bundle.up == "-y" else "axes: z up"
    write_ply(path, bundle.cloud, comments=[axes, _unit(bundle)])
    return [path]


def _write_glb(bundle: _Bundle) -> list[Path]:
    assert bundle.cloud is not None
    path = bundle.folder / POINTS_GLB
    write_glb(path, bundle.cloud, up=bundle.up, metric=bundle.metric)
    return [path]


def _write_colmap(bundle: _Bundle) -> list[Path]:
    cameras, cloud, tracks = bundle.cameras, bundle.cloud, None
    if cloud is not None:
        count = min(len(cloud), MAX_COLMAP_POINTS)
        cloud = cloud[np.arange(count) * len(cloud) // max(count, 1)]
        tracks = observations(cloud, cameras, bundle.depths)
    folder = bundle.folder / COLMAP
    write_colmap(folder, bundle.names, cameras, cloud, tracks=tracks)
    write_colmap(folder / "text", bundle.names, cameras, cloud, tracks=tracks, text=True)
    return [*sorted(folder.glob("*.bin")), *sorted((folder / "text").glob("*.txt"))]


def _write_transforms(bundle: _Bundle) -> list[Path]:
    path, points = bundle.folder / TRANSFORMS, bundle.folder / NERFSTUDIO_POINTS
    written = [path]
    if bundle.cloud is not None and len(bundle.cloud):
        turned = to_nerfstudio_world(bundle.cloud.points, bundle.up)
        cloud = PointCloud(turned, bundle.cloud.colors)
        write_ply(points, cloud, comments=["axes: of transforms.json", _unit(bundle)])
        written = [points, path]
    write_transforms(
        path,
        bundle.names,
        bundle.cameras,
        ply_file_path=NERFSTUDIO_POINTS if points in written else None,
        up=bundle.up,
    )
    return written


def _write_inria(bundle: _Bundle) -> list[Path]:
    path = bundle.folder / INRIA
    write_inria_cameras(path, bundle.names, bundle.cameras)
    return [path]


def _write_blender(bundle: _Bundle) -> list[Path]:
    return write_blender_cameras(
        bundle.folder / BLENDER,
        [(clip.id, clip.cameras) for clip in bundle.clips],
        fps=FPS,
        up=bundle.up,
        metric=bundle.metric,
    )


def _write_depth(bundle: _Bundle) -> list[Path]:
    written = []
    for clip in bundle.clips:
        if clip.depths is not None:
            folder = bundle.folder.joinpath(DEPTHS, *clip.id.split("/"))
            written += write_depth_maps(folder, clip.depths, metric=bundle.metric)
    return written


def _write_worldmirror(bundle: _Bundle) -> list[Path]:
    """Of the frames in the memory, in its order: images, names and cameras, the cameras last."""
    folder = bundle.folder / WORLDMIRROR / bundle.model_type
    frames = [
        (frame_id, start_frame_name(frame_id), camera)
        for frame_id, _, camera in bundle.start_frames
    ]
    for clip in bundle.clips:
        for index in _keyframes(clip):
            frame_id = f"{clip.id}/{index:04d}"
            frames.append((frame_id, _frame_name(clip.id, index), clip.cameras[[index]]))
    images = {f"{camera_id(frame_id)}.png": name for frame_id, name, _ in frames}
    (folder / "images").mkdir(parents=True, exist_ok=True)
    # Cameras that do not cover every image are ignored by WorldMirror.
    for path in (folder / "images").iterdir():
        if path.name not in images:
            path.unlink()
    for image, name in images.items():
        _link(bundle.folder / name, folder / "images" / image)
    cameras, name_map = worldmirror_files(
        [
            (frame_id, camera.camera_from_world[0], camera.intrinsics[0])
            for frame_id, _, camera in frames
        ],
        bundle.scene_name,
    )
    atomic_write_text(folder / "name_map.json", name_map)
    atomic_write_text(folder / "cameras.json", cameras)
    files = [folder / "images" / image for image in images]
    return [*files, folder / "name_map.json", folder / "cameras.json"]


def _keyframes(clip: BundleClip) -> tuple[int, ...]:
    if clip.keyframes is not None:
        return clip.keyframes
    return keyframe_indices(len(clip.cameras), min(KEYFRAMES, len(clip.cameras) - 1))


def _link(source: Path, target: Path) -> None:
    """Give a file a second name, or a copy where the file system has no hard links."""
    if target.exists() and target.samefile(source):
        return  # renaming onto another link of the same file does nothing (POSIX)
    temporary = temporary_sibling(target)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


_WRITERS: Mapping[Output, Callable[[_Bundle], list[Path]]] = MappingProxyType(
    {
        "points": _write_points,
        "glb": _write_glb,
        "colmap": _write_colmap,
        "transforms": _write_transforms,
        "inria": _write_inria,
        "blender": _write_blender,
        "depth": _write_depth,
        "worldmirror": _write_worldmirror,
    }
)
