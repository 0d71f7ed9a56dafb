"""The point memory: committed clips in, one coloured cloud out.

Owns the order of the steps: alignment (align.py), lifting (clip_depths.py), voxels (voxels.py),
contradicted points (free_space.py), outliers (outliers.py). Everything that depends on other
clips happens in ``PointMemory.cloud``, in canonical order: the cloud is the same to the bit
whatever the order in which the clips were committed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from worldstereo.depth.stereo import check_clip
from worldstereo.errors import MediaError
from worldstereo.geometry.lift import SOBEL_THRESHOLD
from worldstereo.reconstruction.align import Alignment, align_clip, unaligned
from worldstereo.reconstruction.clip_depths import ClipDepths, sample_clip
from worldstereo.reconstruction.free_space import uncontradicted
from worldstereo.reconstruction.outliers import DEVIATIONS, NEIGHBOURS, statistical_inliers
from worldstereo.reconstruction.voxels import VoxelGrid, empty_cloud
from worldstereo.types import Cameras, Float32, PointCloud, UInt8


class FusionParameters(BaseModel):
    """How clips are fused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    align: bool = Field(
        default=True,
        description="scale each clip's depths to the cloud; False where the depths are in the "
        "cameras' unit already, as those of stereo_depths are",
    )
    align_frames: bool = Field(
        default=True,
        description="with align: frames with enough overlap get a factor of their own, within "
        "1.25 of their clip's; estimators that see one image at a time need it",
    )
    voxel: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="edge length in scene units; None: voxel_pixels x the width of a pixel at "
        "the median depth (median depth / focal length) of the canonically first clip",
    )
    voxel_pixels: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    samples_per_clip: int = Field(
        default=500_000,
        ge=1,
        description="pixels that are kept of a clip, on a regular grid; 7 bytes each",
    )
    far: float = Field(
        default=8.0, gt=0, description="depths beyond this many medians of a clip's are left out"
    )
    min_cosine: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="of the angle between a ray and the surface's normal; below it a pixel sees "
        "the surface at a grazing angle and is left out",
    )
    sobel_threshold: float = Field(default=SOBEL_THRESHOLD, gt=0, le=1)
    conflict_tolerance: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="a frame contradicts a point that lies by more than this share of the depth "
        "in front of what it sees",
    )
    neighbours: int = Field(default=NEIGHBOURS, ge=1, description="of outlier removal")
    deviations: float = Field(default=DEVIATIONS, ge=0, description="of outlier removal")


@dataclass(frozen=True, eq=False)
class _Fusion:
    cloud: PointCloud
    alignments: dict[str, Alignment]
    voxel: float | None


class PointMemory:
    """The clips of a scene as one cloud.

    Clips are kept as depths and colours on a pixel grid (``samples_per_clip``), not as points:
    only what is known of all clips decides on their scale.

    Args:
        start: cloud of the start image in the cameras' unit; its unit is that of the result. It
            is never scaled, nor judged by other frames.
        parameters: how clips are fused.
    """

    def __init__(
        self, start: PointCloud | None = None, parameters: FusionParameters | None = None
    ) -> None:
        self.parameters = parameters or FusionParameters()
        self._start = start
        self._clips: dict[str, ClipDepths] = {}
        self._fusion: _Fusion | None = None

    @property
    def clip_count(self) -> int:
        """Clips that were added, those without a single usable depth among them."""
        return len(self._clips)

    @property
    def scales(self) -> dict[str, float]:
        """The factor of each clip's depths by trajectory id, in canonical order."""
        return {name: found.factor for name, found in self.alignments.items()}

    @property
    def alignments(self) -> dict[str, Alignment]:
        """How each clip was aligned, by trajectory id, in canonical order."""
        return dict(self._fused().alignments)

    @property
    def voxel(self) -> float | None:
        """Edge length of the voxels in scene units; None before there is anything to tell."""
        return self._fused().voxel

    def add(
        self,
        position: int,
        trajectory_id: str,
        frames: UInt8,
        cameras: Cameras,
        depths: Float32,
    ) -> None:
        """Add a committed clip; one that is there already is left as it is.

        Args:
            position: its place in canonical order.
            trajectory_id: its ``view/name``.
            frames: [F, H, W, 3] RGB, F >= 1.
            cameras: F cameras in the unit of the start cloud, for any size of the same ratio.
            depths: [F, H, W] along each camera's z; 0, negative, NaN and infinity = invalid.

        Raises:
            MediaError: frames or depths of an unusable shape or type.
            CameraError: another number of cameras, or one that is not finite.
        """
        check_clip(frames, cameras)
        _check_depths(frames, depths)
        if trajectory_id in self._clips:
            return
        self._clips[trajectory_id] = sample_clip(
            position,
            trajectory_id,
            frames,
            cameras.resized(*frames.shape[1:3]),
            depths,
            samples=self.parameters.samples_per_clip,
            far=self.parameters.far,
            min_cosine=self.parameters.min_cosine,
            sobel_threshold=self.parameters.sobel_threshold,
        )
        self._fusion = None

    def cloud(self) -> PointCloud:
        """The fused cloud, one point a voxel, in ascending order of the voxels' (x, y, z) index.

        Empty where there is neither a start cloud nor a usable depth. Computed when it is asked
        for after a clip was added; do not change the arrays.
        """
        return self._fused().cloud

    def _fused(self) -> _Fusion:
        if self._fusion is None:
            self._fusion = self._fuse()
        return self._fusion

    def _fuse(self) -> _Fusion:
        clips = sorted(self._clips.values(), key=lambda clip: (clip.position, clip.trajectory_id))
        alignments: list[Alignment] = []
        voxel, grid = self.parameters.voxel, None
        for clip in clips:
            alignment = self._aligned(clip, grid, alignments)
            alignments.append(alignment)
            if voxel is None and clip.footprint > 0:
                voxel = clip.footprint * alignment.factor * self.parameters.voxel_pixels
            if voxel is None:
                continue
            own = VoxelGrid.of(clip.cloud(alignment.frame_factors), voxel)
            grid = own if grid is None else grid.merged(own)
        names = [clip.trajectory_id for clip in clips]
        cloud = self._cleaned(grid, clips, alignments, voxel)
        return _Fusion(cloud, dict(zip(names, alignments, strict=True)), voxel)

    def _aligned(
        self, clip: ClipDepths, grid: VoxelGrid | None, before: list[Alignment]
    ) -> Alignment:
        if not self.parameters.align:
            return unaligned(clip)
        return align_clip(
            clip,
            self._start,
            grid,
            [alignment.factor for alignment in before],
            align_frames=self.parameters.align_frames,
        )

    def _cleaned(
        self,
        grid: VoxelGrid | None,
        clips: list[ClipDepths],
        alignments: list[Alignment],
        voxel: float | None,
    ) -> PointCloud:
        if grid is not None:
            keep = uncontradicted(
                grid.cloud.points, clips, alignments, self.parameters.conflict_tolerance
            )
            grid = grid.selected(keep)
        if self._start is not None and voxel is not None:
            first = VoxelGrid.of(self._start, voxel)
            grid = first if grid is None else first.merged(grid)
        cloud = _sorted(self._start) if grid is None else grid.cloud
        inlier = statistical_inliers(
            cloud.points, self.parameters.neighbours, self.parameters.deviations
        )
        return cloud[inlier]


def _sorted(cloud: PointCloud | None) -> PointCloud:
    """A cloud that nothing gives a voxel size for: finite points, by coordinates and colours."""
    if cloud is None:
        return empty_cloud()
    cloud = cloud[np.asarray(np.isfinite(cloud.points).all(axis=1))]
    order = np.lexsort((*cloud.colors.T[::-1], *cloud.points.T[::-1]))
    return cloud[order]


def _check_depths(frames: UInt8, depths: Float32) -> None:
    if depths.shape != frames.shape[:3] or not np.issubdtype(depths.dtype, np.floating):
        raise MediaError(
            "the depths are not those of the frames",
            where="depths",
            got=f"{list(depths.shape)} {depths.dtype}",
            allowed=f"{list(frames.shape[:3])} of floats",
        )
