"""From an image file, a depth file or an estimator, and parameters to a scene folder.

Owns which builder an image goes to and where its depth comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worldstereo.builder.panorama import build_panorama
from worldstereo.builder.panorama_depth import read_panorama_depth
from worldstereo.builder.parameters import BuildParameters
from worldstereo.builder.perspective import build_scene
from worldstereo.builder.report import BuildReport
from worldstereo.builder.source import read_depth_of, read_picture
from worldstereo.depth.protocol import DepthSource
from worldstereo.geometry.views import Renderer


def build_input(
    image: Path,
    depth: Path | None,
    estimator: DepthSource | None,
    parameters: BuildParameters,
    folder: Path,
    *,
    scale_map: Sequence[tuple[int, int]],
    renderer: Renderer = "torch",
) -> BuildReport:
    """Build a scene folder in the published layout; it appears by one rename.

    Args:
        image: file of the image: a picture, or an equirectangular panorama.
        depth: file of its depth map (of a panorama: distances from the camera), or None.
        estimator: gives the depth where there is no file; one of the two must be there.
        parameters: how it is built.
        folder: of the scene; new, or empty.
        scale_map: working sizes [height, width] of the model.
        renderer: ``torch`` is our own.

    Returns:
        What was built, and what the caller should know about it.

    Raises:
        MediaError: the image or its depth cannot be used.
        CameraError, ParameterError: a trajectory cannot be followed in this scene; the folder
            exists.
        MissingDependencyError: the renderer is not installed.
    """
    assert depth is not None or estimator is not None, "check_source refuses this"
    picture = read_picture(image, parameters)
    if parameters.kind == "panorama":
        distances = read_panorama_depth(depth) if depth is not None else estimator
        assert distances is not None
        return build_panorama(
            picture, distances, parameters, folder, scale_map=scale_map, renderer=renderer
        )
    if depth is not None:
        found = read_depth_of(depth, picture)
    else:
        assert estimator is not None
        (found,) = estimator.depths_of([picture])
    return build_scene(picture, found, parameters, folder, scale_map=scale_map, renderer=renderer)
