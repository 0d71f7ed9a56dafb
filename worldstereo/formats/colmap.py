"""COLMAP models, read and written by pycolmap: cameras, images, points with tracks.

A pose is ``qw qx qy qz tx ty tz``, world to camera with OpenCV axes; intrinsics are in pixels,
pixel centres at +0.5: COLMAP's conventions are ours. Its unit is arbitrary.

Owns reading pinhole models, binary or text, and writing both. Which frames see which points is
found in colmap_tracks.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from worldstereo.errors import CameraError, MissingDependencyError, ParameterError
from worldstereo.formats.atomic import flush, flush_tree, temporary_sibling
from worldstereo.formats.colmap_files import check_model_files
from worldstereo.formats.colmap_tracks import Observations
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.named_cameras import NamedCameras, named_cameras, one_size
from worldstereo.types import Cameras, PointCloud

if TYPE_CHECKING:
    from types import ModuleType

PARTS = ("cameras", "images", "points3D", "rigs", "frames")
SUFFIXES = (".bin", ".txt")
# Where, in a reconstruction's folder, the model may lie.
PLACES = (".", "sparse/0", "sparse")


def find_colmap(folder: Path) -> Path | None:
    """The folder of a model: ``folder``, its ``sparse/0`` or its ``sparse``; None: there is none.

    A model is cameras and images, both .bin or both .txt.
    """
    for place in PLACES:
        if _suffix(folder / place) is not None:
            return folder / place
    return None


def read_colmap(
    folder: Path, *, limits: Limits = DEFAULT_LIMITS, name: str | None = None
) -> NamedCameras:
    """Read the cameras of a COLMAP model.

    Points, rigs and frames are not looked at: an image's pose stands in the images file too.

    Args:
        folder: holds cameras and images, .bin (which wins) or .txt.
        limits: upper bounds.
        name: how errors call the folder; default: its name.

    Returns:
        The images sorted by name, of no stated unit.

    Raises:
        CameraError: no model there; a broken one; a camera that is no pinhole; several sizes.
        MissingDependencyError: pycolmap is not installed.
    """
    name = Path(os.path.realpath(folder)).name if name is None else name
    files = _model_files(folder, name)
    count = check_model_files(*files, name, limits)
    model = _load(files, name)
    if len(model.images) != count:
        raise CameraError(
            "pycolmap reads the model otherwise",
            where=f"{name}/{files[1].name}",
            got=f"{len(model.images)} of {count} images",
            allowed="all of them",
        )
    images = sorted(model.images.values(), key=lambda image: str(image.name))
    lenses = [model.cameras[image.camera_id] for image in images]
    size = one_size([(lens.height, lens.width) for lens in lenses], f"{name}/{files[0].name}")
    poses = np.tile(np.eye(4), (len(images), 1, 1))
    poses[:, :3] = [image.cam_from_world().matrix() for image in images]
    return named_cameras(
        [image.name for image in images],
        poses,
        np.stack([lens.calibration_matrix() for lens in lenses]),
        size,
        poses=f"{name}/{files[1].name}: images sorted by name",
        focal=f"{name}/{files[0].name}: images sorted by name",
        limits=limits,
    )


def write_colmap(
    folder: Path,
    names: Sequence[str],
    cameras: Cameras,
    cloud: PointCloud | None,
    *,
    tracks: Observations | None = None,
    text: bool = False,
) -> None:
    """Write a COLMAP model: cameras, images, points3D, and the rigs and frames of COLMAP 4.

    Each different set of intrinsics becomes a PINHOLE camera. Images are numbered from 1 in the
    order given, points from 1 in the cloud's. The same input gives the same bytes.

    Args:
        folder: made when missing; a model that it holds is replaced, other files are left.
        names: of the N images, relative to wherever the user keeps them, with ``/``.
        cameras: N cameras.
        cloud: the points; None: none.
        tracks: which image sees which point (``colmap_tracks.observations``); a point without
            observations is written too, its track empty.
        text: text files instead of binary ones.

    Raises:
        ParameterError: a name that text files cannot hold, or one twice.
        MissingDependencyError: pycolmap is not installed.
    """
    assert len(names) == len(cameras), (len(names), len(cameras))
    _check_names(names, text)
    model = _model(names, cameras, cloud, tracks)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = temporary_sibling(folder)
    try:
        temporary.mkdir()
        (model.write_text if text else model.write_binary)(str(temporary))
        flush_tree(temporary)
        for part in PARTS:
            for suffix in SUFFIXES:
                written = temporary / f"{part}{suffix}"
                if written.exists():
                    written.replace(folder / written.name)
                else:  # of an older model, which readers would take for this one's
                    (folder / written.name).unlink(missing_ok=True)
        flush(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _suffix(folder: Path) -> str | None:
    for suffix in SUFFIXES:
        if all(os.path.isfile(folder / f"{part}{suffix}") for part in ("cameras", "images")):
            return suffix
    return None


def _model_files(folder: Path, name: str) -> tuple[Path, Path]:
    """The files of cameras and of images; CameraError when there are none to read."""
    suffix = _suffix(folder)
    if suffix is None:
        raise CameraError(
            "no COLMAP model",
            where=name,
            got=_listing(folder),
            allowed="cameras and images, both .bin or both .txt",
        )
    files = folder / f"cameras{suffix}", folder / f"images{suffix}"
    for file in files:
        if not os.access(file, os.R_OK):
            raise CameraError(
                "it may not be read",
                where=f"{name}/{file.name}",
                got="no permission",
                allowed="files that this process may read",
            )
    return files


def _listing(folder: Path) -> str:
    if not os.path.isdir(folder):
        return "no such folder"
    try:
        return ", ".join(sorted(os.listdir(folder)))[:200] or "an empty folder"
    except OSError as problem:
        return problem.strerror or str(problem)


def _pycolmap() -> ModuleType:
    try:
        import pycolmap
    except ImportError as error:
        raise MissingDependencyError(
            "COLMAP models need the package pycolmap",
            where="pycolmap",
            got=str(error),
            fix="install it with: pip install 'pycolmap>=4,<5'",
        ) from error
    module: ModuleType = pycolmap
    return module


def _load(files: Sequence[Path], name: str) -> Any:
    """The model of a camera file and an image file alone."""
    pycolmap = _pycolmap()
    with tempfile.TemporaryDirectory(prefix="colmap-") as place:
        for file in files:
            (Path(place) / file.name).symlink_to(file.resolve())
        # pycolmap wants one; observations of points that are not there do it no harm.
        no_points = b"\0" * 8 if files[0].suffix == ".bin" else b""
        (Path(place) / f"points3D{files[0].suffix}").write_bytes(no_points)
        try:
            return pycolmap.Reconstruction(place)
        except (ValueError, IndexError, KeyError, RuntimeError, MemoryError) as problem:
            raise CameraError(
                "pycolmap cannot read the model",
                where=name,
                got=f"{type(problem).__name__}: {str(problem)[:200]}",
                allowed="cameras and images as COLMAP writes them",
            ) from problem


def _check_names(names: Sequence[str], text: bool) -> None:
    for index, name in enumerate(names):
        if not name or "\0" in name or (text and len(name.split()) != 1):
            raise ParameterError(
                "an image's name cannot be stored",
                where=f"names[{index}]",
                got=repr(name),
                allowed="text without blanks" if text else "text",
                fix="write a binary model" if text else None,
            )
    if len(set(names)) != len(names):
        raise ParameterError(
            "two images have one name",
            where="names",
            got=next(name for name in names if list(names).count(name) > 1),
            allowed="names that are all different",
        )


def _model(
    names: Sequence[str], cameras: Cameras, cloud: PointCloud | None, tracks: Observations | None
) -> Any:
    pycolmap = _pycolmap()
    model = pycolmap.Reconstruction()
    lens_ids = _add_cameras(model, cameras)
    # xyzw of the nearest rotations.
    turns = Rotation.from_matrix(cameras.camera_from_world[:, :3, :3].astype(np.float64))
    quaternions = turns.as_quat(canonical=True)
    places = cameras.camera_from_world[:, :3, 3].astype(np.float64)
    keypoints, of_tracks = _keypoints(len(names), tracks)
    for index, name in enumerate(names):
        image = pycolmap.Image(
            name=name,
            keypoints=keypoints[index],
            camera_id=lens_ids[index],
            image_id=index + 1,
        )
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(quaternions[index]), places[index])
        model.add_image_with_trivial_frame(image, pose)
    if cloud is not None:
        _add_points(model, cloud, tracks, of_tracks)
    return model


def _add_cameras(model: Any, cameras: Cameras) -> list[int]:
    """Add each different lens; the camera id, from 1, of every image."""
    pycolmap = _pycolmap()
    known: dict[tuple[float, ...], int] = {}
    ids = []
    for matrix in cameras.intrinsics.astype(np.float64):
        lens = tuple(float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
        if lens not in known:
            known[lens] = len(known) + 1
            camera = pycolmap.Camera(
                model="PINHOLE",
                width=cameras.width,
                height=cameras.height,
                params=list(lens),
                camera_id=known[lens],
            )
            model.add_camera_with_trivial_rig(camera)
        ids.append(known[lens])
    return ids


def _keypoints(
    count: int, tracks: Observations | None
) -> tuple[list[NDArray[np.float64]], NDArray[np.int64]]:
    """Keypoints [K, 2] of each image, and of each observation its number in its image."""
    if tracks is None:
        return [np.empty((0, 2)) for _ in range(count)], np.empty(0, np.int64)
    order = np.argsort(tracks.frames, kind="stable")
    counts = np.bincount(tracks.frames, minlength=count)
    starts = np.cumsum(counts) - counts
    numbers = np.empty(len(tracks), np.int64)
    numbers[order] = np.arange(len(tracks)) - np.repeat(starts, counts)
    return np.split(tracks.xy[order], np.cumsum(counts)[:-1]), numbers


def _add_points(
    model: Any, cloud: PointCloud, tracks: Observations | None, numbers: NDArray[np.int64]
) -> None:
    pycolmap = _pycolmap()
    points = np.empty(0, np.int64) if tracks is None else tracks.points
    bounds = np.searchsorted(points, np.arange(len(cloud) + 1)).tolist()
    images = [] if tracks is None else (tracks.frames + 1).tolist()
    places, in_image = cloud.points.astype(np.float64), numbers.tolist()
    for index in range(len(cloud)):
        elements = [
            pycolmap.TrackElement(images[at], in_image[at])
            for at in range(bounds[index], bounds[index + 1])
        ]
        point = pycolmap.Point3D(
            xyz=places[index], color=cloud.colors[index], track=pycolmap.Track(elements)
        )
        model.add_point3D_with_id(index + 1, point)
    model.update_point_3d_errors()
