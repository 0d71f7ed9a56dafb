"""Gaussian splats as the PLY files that 3D Gaussian splatting programs exchange.

Owns the properties and their order: x y z, nx ny nz (zeros), f_dc_0..2, f_rest_* (all of red,
then green, then blue), opacity (logit), scale_0..2 (logarithms), rot_0..3 (quaternion, w first).
The axes are those of the scene's world; programs that expect others turn them when they read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from worldstereo.errors import MediaError
from worldstereo.formats.ply import PLACE, columns, read_vertices, write_vertices
from worldstereo.types import Float32

# The constant spherical harmonic, 1 / (2 sqrt(pi)).
SH_DC = 0.28209479177387814
MAX_DEGREE = 4

_NORMAL = ("nx", "ny", "nz")
_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
_SCALE = ("scale_0", "scale_1", "scale_2")
_ROTATION = ("rot_0", "rot_1", "rot_2", "rot_3")


@dataclass(frozen=True, eq=False)
class GaussianSplats:
    """N Gaussians in a scene's world axes, float32.

    Args:
        means: [N, 3] centres.
        rotations: [N, 4] quaternions, w first, world from Gaussian; any length but 0.
        log_scales: [N, 3] natural logarithms of the standard deviations along the own axes.
        opacity_logits: [N], opacity = 1 / (1 + exp(-logit)).
        sh: [N, (d + 1)^2, 3] coefficients of red, green, blue, degree d = 0..4; the colour
            without direction is 0.5 + SH_DC sh[:, 0].
    """

    means: Float32
    rotations: Float32
    log_scales: Float32
    opacity_logits: Float32
    sh: Float32

    def __post_init__(self) -> None:
        n = len(self.means)
        assert self.means.shape == (n, 3), self.means.shape
        assert self.rotations.shape == (n, 4), self.rotations.shape
        assert self.log_scales.shape == (n, 3), self.log_scales.shape
        assert self.opacity_logits.shape == (n,), self.opacity_logits.shape
        assert self.sh.shape == (n, (self.degree + 1) ** 2, 3), self.sh.shape

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the spherical harmonics."""
        return math.isqrt(self.sh.shape[1]) - 1


def sh_from_rgb(rgb: Float32) -> Float32:
    """The constant coefficients of colours [..., 3] in 0..1."""
    return ((rgb - 0.5) / SH_DC).astype(np.float32)


def rgb_from_sh(dc: Float32) -> Float32:
    """Colours of constant coefficients [..., 3]; inverts ``sh_from_rgb``, not clipped."""
    return (dc * SH_DC + 0.5).astype(np.float32)


def write_splat_ply(path: Path, splats: GaussianSplats, *, comments: Sequence[str] = ()) -> None:
    """Write splats whole or not at all, binary little endian; same splats, same bytes.

    Raises:
        MissingDependencyError: plyfile is not installed.
    """
    rest = _rest(splats.sh.shape[1])
    fields = [*PLACE, *_NORMAL, *_DC, *rest, "opacity", *_SCALE, *_ROTATION]
    n = len(splats)
    values = np.concatenate(
        [
            splats.means,
            np.zeros((n, 3), dtype=np.float32),
            splats.sh[:, 0],
            splats.sh[:, 1:].transpose(0, 2, 1).reshape(n, len(rest)),
            splats.opacity_logits[:, None],
            splats.log_scales,
            splats.rotations,
        ],
        axis=1,
        dtype=np.float32,
    )
    rows = np.empty(n, dtype=[(field, "<f4") for field in fields])
    for index, field in enumerate(fields):
        rows[field] = values[:, index]
    write_vertices(path, rows, comments)


def read_splat_ply(path: Path, name: str | None = None) -> GaussianSplats:
    """Read splats; properties may stand in any order, others are passed over.

    Args:
        path: the file.
        name: how errors call it; default: its path.

    Raises:
        MediaError: no PLY file, a property is missing, coefficients of no degree up to 4, a
            value that is not finite, or a quaternion of length 0.
        MissingDependencyError: plyfile is not installed.
    """
    name = str(path) if name is None else name
    rows = read_vertices(path, name)
    count = sum(field.startswith("f_rest_") for field in rows.dtype.names or ())
    sizes = {3 * ((degree + 1) ** 2 - 1): (degree + 1) ** 2 for degree in range(MAX_DEGREE + 1)}
    if count not in sizes:
        raise MediaError(
            "the spherical harmonics are of no degree",
            where=name,
            got=f"{count} properties f_rest_*",
            allowed=", ".join(map(str, sizes)),
        )
    rest = columns(rows, _rest(sizes[count]), name).reshape(len(rows), 3, sizes[count] - 1)
    dc = columns(rows, _DC, name)
    rotations = columns(rows, _ROTATION, name)
    if not rotations.any(axis=1).all():
        raise MediaError(
            "a quaternion has length 0",
            where=f"{name}, vertex {int(rotations.any(axis=1).argmin())}",
        )
    return GaussianSplats(
        means=columns(rows, PLACE, name),
        rotations=rotations,
        log_scales=columns(rows, _SCALE, name),
        opacity_logits=columns(rows, ["opacity"], name)[:, 0],
        sh=np.concatenate([dc[:, None], rest.transpose(0, 2, 1)], axis=1),
    )


def _rest(coefficients: int) -> list[str]:
    """Names of the coefficients behind the first, of all three colours."""
    return [f"f_rest_{index}" for index in range(3 * (coefficients - 1))]
