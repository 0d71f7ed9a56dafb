"""Thinning a cloud to one point a voxel.

Owns the grid that clips are averaged into. Voxels are cubes of an edge length in scene units,
aligned with the world's axes, with corners at its multiples. Plain numpy; sums follow the order
in which points come, so that the same points in the same order give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worldstereo.errors import ParameterError
from worldstereo.types import Float32, PointCloud, UInt8

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class VoxelGrid:
    """Sums of the points in each occupied voxel, in ascending order of (x, y, z) index.

    Attributes:
        voxel: edge length in scene units.
        index: [V, 3] each voxel's place in the grid.
        points: [V, 3] sums of the coordinates.
        colors: [V, 3] sums of the colours.
        count: [V] points in each.
    """

    voxel: float
    index: Int64
    points: Float64
    colors: Float64
    count: Int64

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def of(cls, cloud: PointCloud, voxel: float) -> VoxelGrid:
        """The grid of a cloud; points that are not finite are left out.

        Raises:
            ParameterError: the edge length is not positive and finite.
        """
        if not 0 < voxel < np.inf:
            raise ParameterError(
                "voxels need a positive edge length",
                where="voxel",
                got=str(voxel),
                allowed="a finite number > 0, in scene units",
            )
        finite = np.isfinite(cloud.points).all(axis=1)
        points = cloud.points[finite].astype(np.float64)
        colors = cloud.colors[finite].astype(np.float64)
        count = np.ones(len(points), dtype=np.int64)
        return _gathered(voxel, _places(points, voxel), points, colors, count)

    def merged(self, later: VoxelGrid) -> VoxelGrid:
        """This grid and a later one of the same edge length as one."""
        assert self.voxel == later.voxel, (self.voxel, later.voxel)
        return _gathered(
            self.voxel,
            np.concatenate([self.index, later.index]),
            np.concatenate([self.points, later.points]),
            np.concatenate([self.colors, later.colors]),
            np.concatenate([self.count, later.count]),
        )

    def selected(self, keep: NDArray[np.bool_]) -> VoxelGrid:
        """The voxels where ``keep`` [V] is True."""
        return VoxelGrid(
            self.voxel,
            self.index[keep],
            self.points[keep],
            self.colors[keep],
            self.count[keep],
        )

    @property
    def cloud(self) -> PointCloud:
        """The mean point and colour of each voxel, in the grid's order."""
        count = self.count[:, None]
        points = (self.points / count).astype(np.float32)
        # Rounding to float32 may carry a point over its voxel's side: one step back.
        outside = _places(points.astype(np.float64), self.voxel) != self.index
        middle = ((self.index + 0.5) * self.voxel).astype(np.float32)
        points = np.where(outside, np.nextafter(points, middle), points)
        colors: UInt8 = np.floor(self.colors / count + 0.5).astype(np.uint8)
        return PointCloud(points, colors)


def thin(cloud: PointCloud, voxel: float) -> PointCloud:
    """One point a voxel: the mean of the points in it, and of their colours.

    Thinning twice is thinning once, to the bit. Every point's voxel holds one point of the
    result, which is therefore at most sqrt(3) edge lengths away.

    Args:
        cloud: any points; those that are not finite are left out.
        voxel: edge length in scene units.

    Returns:
        The points in ascending order of their voxels' (x, y, z) index.

    Raises:
        ParameterError: the edge length is not positive and finite.
    """
    return VoxelGrid.of(cloud, voxel).cloud


def empty_cloud() -> PointCloud:
    """A cloud of no points."""
    points: Float32 = np.zeros((0, 3), dtype=np.float32)
    return PointCloud(points, np.zeros((0, 3), dtype=np.uint8))


def _places(points: Float64, voxel: float) -> Int64:
    # Beyond the range of int64 all is one place.
    return np.floor(np.clip(points / voxel, -9e18, 9e18)).astype(np.int64)


def _gathered(
    voxel: float, index: Int64, points: Float64, colors: Float64, count: Int64
) -> VoxelGrid:
    if len(index) == 0:
        return VoxelGrid(voxel, index, points, colors, count)
    order = _order(index)
    index = index[order]
    new = np.append(True, (index[1:] != index[:-1]).any(axis=1))
    first = np.flatnonzero(new)
    return VoxelGrid(
        voxel,
        index[first],
        np.add.reduceat(points[order], first, axis=0),
        np.add.reduceat(colors[order], first, axis=0),
        np.add.reduceat(count[order], first),
    )


def _order(index: Int64) -> NDArray[np.intp]:
    """The stable order of voxels by (x, y, z)."""
    lowest = index.min(axis=0)
    highest = index.max(axis=0)
    columns, rows, layers = (
        int(high) - int(low) + 1 for low, high in zip(lowest, highest, strict=True)
    )
    if columns * rows * layers < 2**62:
        # One key instead of three; two sorted grids after each other are merged in linear time.
        x, y, z = (index - lowest).T
        return np.argsort((x * rows + y) * layers + z, kind="stable")
    return np.lexsort((index[:, 2], index[:, 1], index[:, 0]))
