"""What a scene is built from: the image file and its depth file, read and checked.

``check_source`` needs no estimator and renders nothing: a
bad image or depth map is refused with it before anything is queued.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from worldstereo.builder.layout import check_image_shape
from worldstereo.builder.panorama_depth import read_panorama_depth
from worldstereo.builder.parameters import BuildParameters
from worldstereo.builder.start_camera import start_intrinsics
from worldstereo.depth.protocol import DepthMap
from worldstereo.depth.provided import check_depth_size, read_depth
from worldstereo.errors import MediaError
from worldstereo.formats.images import read_image
from worldstereo.geometry.equirectangular import check_panorama_image
from worldstereo.types import UInt8


def check_source(
    image: Path, depth: Path | None, parameters: BuildParameters, *, estimator: bool
) -> None:
    """Check the files that a scene is to be built from; both are decoded.

    Args:
        image: file of the image.
        depth: file of its depth map, or None.
        parameters: how it will be built.
        estimator: whether there is one, for an image without a depth map.

    Raises:
        MediaError: the image or the depth map cannot be used, or there is no depth at all.
        CameraError: the field of view does not fit the image, or given cameras contradict
            each other.
    """
    picture = read_picture(image, parameters)
    if parameters.kind == "perspective":
        unsaid = DepthMap(np.zeros(picture.shape[:2], dtype=np.float32), metric=False)
        start_intrinsics(parameters, unsaid, (picture.shape[0], picture.shape[1]))
    if depth is not None and parameters.kind == "panorama":
        read_panorama_depth(depth)
    elif depth is not None:
        read_depth_of(depth, picture)
    elif not estimator:
        raise MediaError(
            "an image alone has no depth",
            where=image.name,
            got="no depth map and no depth estimator",
            allowed="a depth map of the image (.npy, .exr or 16-bit .png with its unit), or an "
            "estimator",
            fix="give one with --depth, or name an estimator: moge or depth_pro",
        )


def read_picture(image: Path, parameters: BuildParameters) -> UInt8:
    """Decode the image [H, W, 3], upright.

    Raises:
        MediaError: it is no image, too large, too small or too long; as a panorama, not twice as
            wide as high.
    """
    picture = read_image(image, image.name, upright=True)
    if parameters.kind == "panorama":
        check_panorama_image(picture)
    else:
        check_image_shape(picture)
    return picture


def read_depth_of(depth: Path, picture: UInt8) -> DepthMap:
    """Read the depth file of a picture [H, W, 3], at the map's own size.

    Raises:
        MediaError: it is no depth map, or not of this picture.
        MissingDependencyError: it is an .exr and OpenEXR is not installed.
    """
    depths = read_depth(depth, depth.name)
    check_depth_size(depths, picture.shape[0], picture.shape[1], depth.name)
    return DepthMap(depths, metric=False)
