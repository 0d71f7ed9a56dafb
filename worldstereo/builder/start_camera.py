"""The camera of a start image: how far its pivot is, and its intrinsics.

Owns who is believed about them.
"""

from __future__ import annotations

import numpy as np

from worldstereo.builder.parameters import BuildParameters
from worldstereo.builder.report import IntrinsicsSource
from worldstereo.builder.specs import GivenCameras, trajectory_names
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import CameraError, MediaError
from worldstereo.formats.cameras import check_intrinsics
from worldstereo.types import Float32

# Where nobody says how wide the image is: a usual photo.
ASSUMED_FIELD_OF_VIEW = 60.0
# Relative difference that two statements about one focal length may have.
FOCAL_TOLERANCE = 0.01


def median_depth(depth: Float32) -> float:
    """The median of the valid depths [H, W] (0 = invalid), which lengths are fractions of.

    Raises:
        MediaError: no depth is valid.
    """
    valid = depth[np.isfinite(depth) & (depth > 0)]
    if not valid.size:
        raise MediaError(
            "the depth map is empty",
            where="depth",
            got="no pixel with a positive finite depth",
            allowed="at least one",
        )
    return float(np.median(valid.astype(np.float64)))


def start_intrinsics(
    parameters: BuildParameters, depth: DepthMap, size: tuple[int, int]
) -> tuple[Float32, IntrinsicsSource]:
    """The start image's intrinsics, and who says so.

    The first of these that there is: camera 0 of given cameras, the parameters' field of view,
    the source of depth, 60 degrees.

    Args:
        parameters: of the scene.
        depth: of its image.
        size: (height, width) of the image.

    Returns:
        [3, 3] float32 in pixels of ``size``.

    Raises:
        CameraError: intrinsics that no camera has; given cameras that contradict each other.
    """
    given = _given_intrinsics(parameters, size)
    others, source = _other_intrinsics(parameters, depth, size)
    if given is None or np.allclose(given, others, rtol=1e-5, atol=0):
        return others, source
    return given, "cameras"


def _other_intrinsics(
    parameters: BuildParameters, depth: DepthMap, size: tuple[int, int]
) -> tuple[Float32, IntrinsicsSource]:
    height, width = size
    if depth.intrinsics is not None and parameters.field_of_view is None:
        rows, columns = depth.depth.shape
        scale = np.array([[width / columns], [height / rows], [1.0]])
        scaled = np.asarray(depth.intrinsics, dtype=np.float64) * scale
        return check_intrinsics(scaled[None], size, "intrinsics of the depth")[0], "depth"
    degrees = parameters.field_of_view or ASSUMED_FIELD_OF_VIEW
    focal = width / 2 / np.tan(np.radians(degrees) / 2)
    matrix = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    source: IntrinsicsSource = "assumed" if parameters.field_of_view is None else "field_of_view"
    return check_intrinsics(matrix[None], size, "field_of_view")[0], source


def _given_intrinsics(parameters: BuildParameters, size: tuple[int, int]) -> Float32 | None:
    found: list[tuple[str, Float32]] = []
    for name, spec in zip(trajectory_names(parameters.paths), parameters.paths, strict=True):
        if isinstance(spec, GivenCameras):
            matrices = spec.given_intrinsics(*size, parameters.frames)
            found += [] if matrices is None else [(name, matrices[0])]
    if not found:
        return None
    first_name, first = found[0]
    for name, matrix in found[1:]:
        if not np.allclose(matrix, first, rtol=FOCAL_TOLERANCE, atol=FOCAL_TOLERANCE * max(size)):
            raise CameraError(
                "two trajectories state other intrinsics for the start image",
                where=f"{name}: intrinsics[0]",
                got=str(matrix.tolist()),
                allowed=f"those of {first_name}, {first.tolist()} in pixels of the image",
            )
    checked = check_intrinsics(first[None].astype(np.float64), size, f"{first_name}: intrinsics")
    return np.asarray(checked[0])


def intrinsics_warnings(parameters: BuildParameters, source: IntrinsicsSource) -> list[str]:
    """What the caller should know: the field of view was assumed, or theirs was not used."""
    if source == "assumed":
        return [
            f"the field of view was assumed to be {ASSUMED_FIELD_OF_VIEW:g} degrees: neither the "
            "depth nor the parameters say it"
        ]
    if source == "cameras" and parameters.field_of_view is not None:
        return ["field_of_view was not used: the given cameras gave the intrinsics"]
    return []


def horizontal_degrees(intrinsics: Float32, width: int) -> float:
    """Horizontal field of view of intrinsics [3, 3] for images ``width`` pixels wide."""
    return float(np.degrees(2 * np.arctan(width / (2 * float(intrinsics[0, 0])))))
