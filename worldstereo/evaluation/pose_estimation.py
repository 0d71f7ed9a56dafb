"""Camera poses of a clip's frames: read from a file, or found by structure from motion.

Owns both ways, and how a file's entries are told apart. Exact geometry, for scenes whose truth
is known, is exact_geometry.py's.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from worldstereo.errors import CameraError
from worldstereo.evaluation.cameras import PoseEstimate
from worldstereo.evaluation.colmap_log import silent_pycolmap
from worldstereo.evaluation.visibility import Float64
from worldstereo.formats.images import write_png
from worldstereo.formats.results import frame_path
from worldstereo.types import Cameras, UInt8

SEED = 0


def read_poses(
    path: Path,
    trajectory_id: str,
    frames: int,
    image_size: tuple[int, int],
    *,
    scaled: bool = False,
    others: Collection[str] = (),
    shared: bool = False,
) -> PoseEstimate:
    """Estimated cameras from a file, matched to a clip's frames.

    The file is a TUM trajectory (``time x y z qx qy qz qw`` a line, world_from_camera, the time
    being the frame's number) or anything that ``worldstereo.formats.foreign_cameras`` reads.
    Cameras that are named like the clip's frames (``0007.png``, ``<view>/<trajectory>/0007``)
    are matched by name, and a frame that the file lacks is a failure; so is every frame where the
    file's cameras are named like those of the scene's other clips. Cameras of any other names
    must be as many as the frames and are taken in order.

    Args:
        path: the file, or the folder of a COLMAP model.
        trajectory_id: ``view/name`` of the clip.
        frames: F of the clip.
        image_size: its (height, width), for formats that state intrinsics without one.
        scaled: whether the file's lengths are in the unit of the commanded cameras; a file that
            says that it is metric needs no word for it.
        others: ids of the scene's other clips.
        shared: whether the file is read for several clips: then names that hold the clip's id
            alone tell them apart.

    Raises:
        CameraError: no cameras can be read from it, or they cannot be matched.
    """
    tum = _read_tum(path) if path.is_file() else None
    if tum is not None:
        names, poses = tum
    else:
        from worldstereo.formats.foreign_cameras import read_foreign_cameras

        named = read_foreign_cameras(path, image_size=image_size)
        names, poses = named.names, named.cameras.camera_from_world.astype(np.float64)
        scaled = scaled or bool(named.metric)
    places = _frame_numbers(names, trajectory_id, frames, others, shared)
    if places is None:
        raise CameraError(
            "the estimated poses cannot be matched to the frames",
            where=str(path),
            got=f"{len(names)} poses: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}",
            allowed=f"poses named after the frames 0000 to {frames - 1:04d} of {trajectory_id}, "
            f"each at most once; or one for each of the {frames} frames, in order",
            fix=f"these are several clips: name poses {trajectory_id}/0000, or choose one clip"
            if shared
            else None,
        )
    placed = np.tile(np.eye(4), (frames, 1, 1))
    found = np.zeros(frames, dtype=np.bool_)
    for row, number in places.items():
        placed[number], found[number] = poses[row], True
    kind = "cameras" if tum is None else "TUM trajectory"
    return PoseEstimate(placed, found, scaled=scaled, estimator=f"{kind} of {path.name}")


def _frame_numbers(
    names: Sequence[str], trajectory_id: str, frames: int, others: Collection[str], shared: bool
) -> dict[int, int] | None:
    """Frame of each row that is one of the clip's, by name or in order; None: neither fits."""
    named = [
        (row, _frame_number(name, trajectory_id))
        for row, name in enumerate(names)
        if not shared or _of_clip(name, trajectory_id)
    ]
    places = {row: number for row, number in named if number is not None}
    numbers = list(places.values())
    if places and max(numbers) < frames and len(set(numbers)) == len(numbers):
        return places
    if not places and any(_of_clip(name, other) for name in names for other in others):
        return {}
    in_order = len(names) == frames and not shared
    return {row: row for row in range(frames)} if in_order else None


def _of_clip(name: str, trajectory_id: str) -> bool:
    """Whether a camera's name says that it is of this clip."""
    return trajectory_id in name and _frame_number(name, trajectory_id) is not None


def _frame_number(name: str, trajectory_id: str) -> int | None:
    """Which frame of a clip a camera's name means: None where it is another clip's, or none."""
    match = re.fullmatch(r"(?:(.*)/)?(\d+)(?:\.[a-zA-Z]\w*)?", name)
    if match is None:
        return None
    folder = (match[1] or "").removesuffix("frames").strip("/")
    belongs = not folder or trajectory_id == folder or folder.endswith(f"/{trajectory_id}")
    return int(match[2]) if belongs else None


def _read_tum(path: Path) -> tuple[tuple[str, ...], Float64] | None:
    """Frame numbers and camera_from_world of a TUM file; None for a file of another kind."""
    try:
        lines = path.read_text().splitlines()
        rows = [line.split() for line in lines if line.strip() and not line.startswith("#")]
        values = np.array(rows, dtype=np.float64)
    except (UnicodeDecodeError, ValueError):
        return None
    if values.ndim != 2 or values.shape[1] != 8 or len(values) == 0:
        return None
    if not np.isfinite(values).all() or (np.linalg.norm(values[:, 4:], axis=1) < 1e-6).any():
        raise CameraError(
            "the TUM trajectory holds what is no pose",
            where=str(path),
            got="a number that is not finite, or a quaternion of length 0",
            allowed="time x y z qx qy qz qw a line",
        )
    poses = np.tile(np.eye(4), (len(values), 1, 1))
    rotation = Rotation.from_quat(values[:, 4:]).inv()
    poses[:, :3, :3] = rotation.as_matrix()
    poses[:, :3, 3] = -rotation.apply(values[:, 1:4])
    return tuple(f"{time:.9g}" for time in values[:, 0]), poses


def estimate_by_sfm(frames: UInt8, cameras: Cameras) -> PoseEstimate:
    """Poses by pycolmap: SIFT, exhaustive matching, incremental mapping, intrinsics fixed.

    One thread and fixed seeds; the same pictures give the same poses with one build of the
    library. Frames outside the largest model are failures.

    Args:
        frames: [F, H, W, 3] uint8.
        cameras: F commanded cameras, of which the intrinsics alone are used.

    Returns:
        Poses in a world of their own, of unknown scale.
    """
    poses = np.tile(np.eye(4), (len(frames), 1, 1))
    found = np.zeros(len(frames), dtype=np.bool_)
    with tempfile.TemporaryDirectory() as temporary, silent_pycolmap() as pycolmap:
        name = f"pycolmap {pycolmap.__version__}: SIFT, incremental mapping, fixed intrinsics"
        model = _largest_model(pycolmap, Path(temporary), frames, cameras)
        for image in model.images.values() if model is not None else ():
            number = int(Path(image.name).stem)
            if image.has_pose:
                poses[number, :3] = image.cam_from_world().matrix()
                found[number] = True
    return PoseEstimate(poses, found, scaled=False, estimator=name)


def _largest_model(pycolmap: Any, folder: Path, frames: UInt8, cameras: Cameras) -> Any:
    """The reconstruction with the most frames, or None."""
    database, images, models = folder / "database.db", folder / "images", folder / "models"
    (images / "frames").mkdir(parents=True)
    models.mkdir()
    for number, frame in enumerate(frames):
        write_png(frame_path(images, number), frame)
    pycolmap.set_random_seed(SEED)
    _extract(pycolmap, database, images, cameras)
    matching = pycolmap.FeatureMatchingOptions()
    matching.num_threads, matching.use_gpu = 1, False
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    pycolmap.match_exhaustive(
        database,
        matching_options=matching,
        verification_options=verification,
        device=pycolmap.Device.cpu,
    )
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, SEED
    options.ba_refine_focal_length = False
    options.ba_refine_principal_point = False
    options.ba_refine_extra_params = False
    options.mapper.abs_pose_refine_focal_length = False
    options.mapper.abs_pose_refine_extra_params = False
    options.extract_colors = False
    # A clip of 21 frames moves less between two of them than a photographer does.
    options.mapper.init_min_tri_angle = 4.0
    options.mapper.init_min_num_inliers = 30
    options.min_model_size = 3
    found = pycolmap.incremental_mapping(database, images, models, options=options)
    ranked = sorted(found.items(), key=lambda item: (-item[1].num_reg_images(), item[0]))
    return ranked[0][1] if ranked else None


def _extract(pycolmap: Any, database: Path, images: Path, cameras: Cameras) -> None:
    """Features of all frames; frames of equal intrinsics share one camera."""
    options = pycolmap.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = 1, False
    groups: dict[tuple[float, ...], list[str]] = {}
    for number, k in enumerate(cameras.intrinsics.astype(np.float64)):
        lens = tuple(float(value) for value in (k[0, 0], k[1, 1], k[0, 2], k[1, 2]))
        groups.setdefault(lens, []).append(
            frame_path(images, number).relative_to(images).as_posix()
        )
    for lens, names in groups.items():
        reader = pycolmap.ImageReaderOptions()
        reader.camera_model = "PINHOLE"
        reader.camera_params = ",".join(repr(value) for value in lens)
        pycolmap.extract_features(
            database,
            images,
            image_names=names,
            camera_mode=pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=options,
            device=pycolmap.Device.cpu,
        )
