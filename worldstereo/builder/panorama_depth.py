"""Where a panorama's distances come from: a map that the user gives, or an estimator's views.

Owns asking the estimator for the views and reading the map. How the views' depths become one is
depth/merge.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from worldstereo.depth.merge import MergedDepth, merge_depths
from worldstereo.depth.protocol import DepthMap, DepthSource
from worldstereo.depth.provided import read_depth
from worldstereo.errors import MediaError
from worldstereo.geometry.equirectangular import sample_nearest
from worldstereo.types import Cameras, Float32, UInt8

Float64 = NDArray[np.float64]

# In the scene's folder; readers of scenes pass over it.
MERGED_DEPTH_FILE = "merged_depth.json"
# Views that an estimator is asked for at a time; where one of them has no depth (nothing but
# sky, say), each of these is asked for by itself.
VIEWS_AT_A_TIME = 8


class PanoramaDistances(Protocol):
    """Gives the distance of what a panorama shows in any direction."""

    @property
    def metric(self) -> bool:
        """True where distances are stated in metres."""
        ...

    def distances(self, towards: Float64) -> Float32:
        """Distance from the panorama's camera, 0 where there is none.

        Args:
            towards: [..., 3] unit directions in the world.

        Returns:
            [...] float32.
        """
        ...


@dataclass(frozen=True, eq=False)
class ProvidedPanoramaDepth:
    """A panoramic distance map that the user brings.

    Attributes:
        distance: [H, 2 H] float32 from the camera along each pixel's ray (not along a z axis),
            pixels as in the panorama, at any size; 0 = none.
        metric: True where it is in metres.

    Raises:
        MediaError: not twice as wide as high, or values that are no distances.
    """

    distance: Float32
    metric: bool = True

    def __post_init__(self) -> None:
        shape = self.distance.shape
        if len(shape) != 2 or shape[1] != 2 * shape[0]:
            raise MediaError(
                "the distance map is no full panorama",
                where="panorama depth",
                got=f"an array of shape {list(shape)}",
                allowed="[H, 2 H]: 360 x 180 degrees, as the panorama",
            )
        bad = ~(np.isfinite(self.distance) & (self.distance >= 0))
        if bad.any() or not self.distance.any():
            raise MediaError(
                "the distance map holds values that are no distances",
                where="panorama depth",
                got=f"{int(bad.sum())} of {bad.size} are negative or not finite"
                if bad.any()
                else "nothing but 0",
                allowed="metres along each pixel's ray, > 0, or 0 where there is none",
            )

    def distances(self, towards: Float64) -> Float32:
        """Distance of the pixel that each direction [..., 3] lies in; [...] float32."""
        return sample_nearest(self.distance, towards)


def read_panorama_depth(path: Path) -> ProvidedPanoramaDepth:
    """Read a panoramic distance map.

    Args:
        path: [H, 2 H] in metres along each pixel's ray: .npy, .exr, or 16-bit grey .png with its
            unit, see ``depth.provided.read_depth``.

    Raises:
        MediaError: the file cannot be read, or is no full panorama.
        MissingDependencyError: the file is an .exr and OpenEXR is not installed.
    """
    return ProvidedPanoramaDepth(read_depth(path, path.name))


def estimate_distances(views: UInt8, cameras: Cameras, source: DepthSource) -> MergedDepth:
    """Have the depth of views estimated and merged.

    Args:
        views: [N, height, width, 3], what the cameras see of the panorama.
        cameras: the N cameras, of the views' size.
        source: the estimator. A view that it finds no depth in (``MediaError``) has none.

    Raises:
        MediaError: no view has any depth.
    """
    depths: list[DepthMap] = []
    for i in range(0, len(views), VIEWS_AT_A_TIME):
        part = list(views[i : i + VIEWS_AT_A_TIME])
        try:
            depths += source.depths_of(part)
        except MediaError:
            depths += [_depth_or_nothing(view, source) for view in part]
    return merge_depths(depths, cameras)


def _depth_or_nothing(view: UInt8, source: DepthSource) -> DepthMap:
    try:
        return source.depths_of([view])[0]
    except MediaError:
        return DepthMap(np.zeros(view.shape[:2], dtype=np.float32), metric=True)


def merge_report(merged: MergedDepth) -> dict[str, Any]:
    """What merged_depth.json says: the views' scales, and what is left between them.

    Views are those of ``pano_bank`` by name, then ``zenith`` and ``nadir``; an offset or spread
    of 0.01 is one percent of the distance.
    """
    names = _names(merged)
    return {
        "metric": merged.metric,
        "statements": merge_statements(merged),
        "views": [
            {"name": name, "scale": float(scale), "valid_depth": float((depth > 0).mean())}
            for name, scale, depth in zip(names, merged.scales, merged.depths, strict=True)
        ],
        "pairs": [
            {
                "views": [names[pair.first], names[pair.second]],
                "directions": pair.shared,
                "offset": pair.offset,
                "spread": pair.spread,
            }
            for pair in merged.pairs
        ],
    }


def merge_statements(merged: MergedDepth) -> list[str]:
    """What the caller should know about merged depth."""
    empty = np.array([not depth.any() for depth in merged.depths])
    scales = merged.scales[~empty]
    unit = "metres are those of the median view, not measured" if merged.metric else "no metres"
    offsets = sorted(abs(pair.offset) for pair in merged.pairs)
    left = ""
    if offsets:
        middle, worst = offsets[len(offsets) // 2], offsets[-1]
        left = f"; overlapping views still differ by {middle:.1%} (median pair) to {worst:.1%}"
    found = [
        f"depth was estimated in {len(scales)} views and merged: they were multiplied by "
        f"{scales.min():.3g} to {scales.max():.3g}{left}; {unit}"
    ]
    if empty.any():
        names = [name for name, none in zip(_names(merged), empty, strict=True) if none]
        found.append(f"no depth was found in the views {', '.join(names)}")
    return found


def _names(merged: MergedDepth) -> list[str]:
    return [*(f"{index:04d}" for index in range(len(merged.scales) - 2)), "zenith", "nadir"]
