"""What a scene is built from: the image file and its depth file, read and checked.

``check_source`` needs no estimator and renders nothing: a
bad image or depth map is refused with it before anything is queued.
"""

from __future__ import annotations

from pathlib import Path

from worldstereo.builder.panorama_depth import read_panorama_depth
from worldstereo.builder.parameters import BuildParameters
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
    """
    picture = read_picture(image, parameters)
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
        MediaError: it is no image, too large or too small; as a panorama, not twice as wide.
    """
    picture = read_image(image, image.name, upright=True)
    if parameters.kind == "panorama":
        check_panorama_image(picture)
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
