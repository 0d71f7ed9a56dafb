"""What a finished scene has for other programs: its clips with their cameras, its start frames.

Owns ``BundleClip``, reading it from a result folder, and where start frames lie in one
(``start_frames/``: they are no results, but what is written for other programs refers to them).
The cameras are those that were commanded; nothing is estimated again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from pydantic import ValidationError

from worldstereo.errors import LayoutError
from worldstereo.formats.atomic import atomic_write_text, flush, temporary_sibling
from worldstereo.formats.depth_maps import DEPTH, read_depth_maps
from worldstereo.formats.images import read_image, resize_bicubic, write_png
from worldstereo.formats.manifest import read_manifest, to_json
from worldstereo.formats.results import CameraFile, camera_file, read_trajectory
from worldstereo.memory.plan import ScenePlan
from worldstereo.memory.stored_plan import PLAN_FILE
from worldstereo.types import Cameras, Float32, SceneInput, UInt8, concatenate_cameras

START_FRAMES, CAMERAS, DEPTHS = "start_frames", "cameras.json", "depth"

# A start frame: its id in the memory, its image [height, width, 3], its camera (N = 1).
StartFrame = tuple[str, UInt8, Cameras]


@dataclass(frozen=True, eq=False)
class BundleClip:
    """A committed clip.

    Attributes:
        id: ``view/name``, also its folder below the result folder.
        frames: [F, height, width, 3] uint8.
        cameras: F commanded cameras at the size of the frames.
        depths: [F, height, width] float32 along z, 0 = invalid; None where there are none.
        keyframes: indices of the frames that entered the memory; None: those of the default.
    """

    id: str
    frames: UInt8
    cameras: Cameras
    depths: Float32 | None = None
    keyframes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        size = (len(self.cameras), self.cameras.height, self.cameras.width)
        assert self.frames.shape == (*size, 3), (self.frames.shape, size)
        assert self.depths is None or self.depths.shape == size, size


class StartFrameFile(CameraFile):
    """start_frames/cameras.json: the cameras of the images beside it, and their ids."""

    ids: list[str]


def read_result_clips(folder: Path) -> list[BundleClip]:
    """The committed clips of a finished scene, in canonical order.

    Args:
        folder: the scene's result folder.

    Returns:
        Every clip that the plan names and the folder holds, with its depth where the folder has
        it. Trajectories that failed or were skipped are left out.

    Raises:
        LayoutError: no plan, no manifest (the scene is not finished), no clip at all, or a file
            of a clip is missing.
        MediaError: a frame or a depth map cannot be read.
    """
    read_manifest(folder)
    clips = []
    for planned in read_plan(folder).trajectories:
        place = folder.joinpath(*planned.id.split("/"))
        if not place.is_dir():
            continue
        result = read_trajectory(place)
        depths = folder.joinpath(DEPTHS, *planned.id.split("/"))
        clips.append(
            BundleClip(
                id=planned.id,
                frames=result.frames,
                cameras=result.cameras,
                depths=read_depth_maps(depths).depths if (depths / DEPTH).is_file() else None,
                keyframes=tuple(index for _, index in planned.adds),
            )
        )
    if not clips:
        raise LayoutError(
            "the result holds no clip", where=str(folder), got="no trajectory was completed"
        )
    return clips


def start_frames_of(scene: SceneInput) -> list[StartFrame]:
    """A scene's start frames at its working size, each with the camera that took it.

    A scene of one start image has it in its memory at the world's origin, as the published
    program does; what it was really taken with is the first trajectory's camera 0, which the
    clips' cameras fit, so that is what other programs are told.
    """
    height, width = scene.size
    found = []
    for frame in scene.start_frames:
        camera = frame.camera
        if scene.layout != "panorama":
            camera = scene.trajectories[0].cameras[[0]]
        image = resize_bicubic(read_image(frame.image), scene.size)
        found.append((frame.id, image, camera.resized(height, width)))
    return found


def start_frame_name(frame_id: str) -> str:
    """Where a start frame's image lies below the result folder: ``start_frames/<frame>.png``."""
    return f"{START_FRAMES}/{PurePosixPath(frame_id).stem}.png"


def write_start_frames(folder: Path, start_frames: Sequence[StartFrame]) -> list[Path]:
    """Write the start frames into a result folder, their cameras.json last.

    Args:
        folder: the scene's result folder.
        start_frames: at least one, all of one size, with cameras of that size.

    Returns:
        The files.
    """
    names = [start_frame_name(frame_id) for frame_id, _, _ in start_frames]
    assert len(set(names)) == len(names), f"two start frames of one name: {names}"
    (folder / START_FRAMES).mkdir(parents=True, exist_ok=True)
    for name, (_, image, _) in zip(names, start_frames, strict=True):
        temporary = temporary_sibling(folder / name)
        try:
            write_png(temporary, image)
            flush(temporary)
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)
    cameras = concatenate_cameras([camera for _, _, camera in start_frames])
    content = CameraFile.model_validate_json(camera_file(cameras)).model_dump()
    listed = StartFrameFile(**content, ids=[frame_id for frame_id, _, _ in start_frames])
    described = folder / START_FRAMES / CAMERAS
    atomic_write_text(described, to_json(listed.model_dump()))
    return [*(folder / name for name in names), described]


def read_start_frames(folder: Path) -> list[StartFrame]:
    """The start frames that ``write_start_frames`` wrote; none where the folder has none.

    Raises:
        LayoutError: cameras.json is not ours, or an image is missing.
        MediaError: an image cannot be read.
    """
    path = folder / START_FRAMES / CAMERAS
    if not path.is_file():
        return []
    try:
        content = StartFrameFile.model_validate_json(path.read_bytes())
        poses = np.array(content.camera_from_world_opencv, dtype=np.float32)
        intrinsics = np.array(content.intrinsics, dtype=np.float32)
        n = len(content.ids)
        if poses.shape != (n, 4, 4) or intrinsics.shape != (n, 3, 3):
            raise ValueError(f"{n} ids, cameras of shapes {poses.shape} and {intrinsics.shape}")
    except ValueError as problem:
        raise LayoutError(
            "a file of a result does not read as it was written",
            where=str(path),
            got=f"{type(problem).__name__}: {str(problem)[:200]}",
        ) from problem
    cameras = Cameras(poses, intrinsics, content.height, content.width)
    return [
        (frame_id, _read_start_image(folder / start_frame_name(frame_id)), cameras[[index]])
        for index, frame_id in enumerate(content.ids)
    ]


def _read_start_image(path: Path) -> UInt8:
    if not path.is_file():
        raise LayoutError("a start frame is missing", where=str(path), got="no such file")
    return read_image(path)


def read_plan(folder: Path) -> ScenePlan:
    """The plan that a scene's result folder was started with; LayoutError where there is none."""
    path = folder / PLAN_FILE
    try:
        return ScenePlan.model_validate_json(path.read_bytes())
    except OSError as problem:
        raise LayoutError(
            "the result has no plan",
            where=str(path),
            got=str(problem.strerror),
            allowed="a scene's result folder: OUTPUT/<scene>",
        ) from problem
    except ValidationError as problem:
        first = problem.errors()[0]
        raise LayoutError(
            "the plan does not read as it was written",
            where=str(path),
            got=f"{'.'.join(map(str, first['loc'])) or 'file'}: {first['msg']}",
        ) from problem
