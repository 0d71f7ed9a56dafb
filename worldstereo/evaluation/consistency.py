"""Cross-trajectory consistency: do two clips show the same thing where they look at the same.

Owns the measure (docs/evaluation.md). Each pixel of clip B is followed, by B's depth, into the
frames of clip A; where A sees the same surface, by A's depth, the two colours are compared. No
ground truth is needed, only depths, exact or estimated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from worldstereo.evaluation.images import decibels
from worldstereo.evaluation.visibility import (
    DEPTH_TOLERANCE,
    Float64,
    bilinear,
    seen_by,
    views_of,
)
from worldstereo.types import Bool, Cameras, Float32, UInt8

# Every so many-eth frame of a clip is compared: the cost grows with the square.
STRIDE = 4


@dataclass(frozen=True, eq=False)
class ClipDepths:
    """Where a clip's pixels lie in the world.

    Attributes:
        id: ``view/name``.
        cameras: F cameras at the size of the frames, all clips in one world.
        depths: [F, H, W] float32 along z, 0 where there is none.
        holes: [F, H, W] bool, what the clip's point render left open; None: not known.
    """

    id: str
    cameras: Cameras
    depths: Float32
    holes: Bool | None = None


class PairConsistency(BaseModel):
    """Clip ``source`` seen from clip ``target``'s cameras.

    Attributes:
        source, target: ids of the clips.
        covered: pixels of the target that the source sees, of all pairs of frames.
        psnr: dB over them; null where there are none.
        psnr_on_holes: the same on holes of the target's point render; null where its holes are
            not known, or the source sees none of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    target: str
    covered: float
    psnr: float | None
    psnr_on_holes: float | None


class Consistency(BaseModel):
    """All ordered pairs of a scene's clips, and their means; null where no pair has a value."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    psnr: float | None
    psnr_on_holes: float | None
    pairs: tuple[PairConsistency, ...]


def consistency(
    clips: Sequence[ClipDepths],
    methods: Mapping[str, Mapping[str, UInt8]],
    *,
    stride: int = STRIDE,
    tolerance: float = DEPTH_TOLERANCE,
) -> dict[str, Consistency]:
    """Compare every clip with every other one, for several ways of making their frames.

    Frame 0 of each clip is left out: clips that start from one image agree there by definition.

    Args:
        clips: of one scene, with depths in one unit.
        methods: for each method the frames [F, H, W, 3] uint8 of the clips that it made, by id;
            pairs of which one is missing are left out.
        stride: frames stride, 2 stride, ... of each clip are compared.
        tolerance: relative difference of depths up to which a surface is the same.

    Returns:
        The consistency of each method.
    """
    found: dict[str, list[PairConsistency]] = {name: [] for name in methods}
    for target in clips:
        for source in clips:
            if source is target:
                continue
            frames = {
                name: (made[source.id], made[target.id])
                for name, made in methods.items()
                if source.id in made and target.id in made
            }
            for name, pair in _pairs(source, target, frames, stride, tolerance).items():
                found[name].append(pair)
    return {
        name: Consistency(
            psnr=mean_of([pair.psnr for pair in pairs]),
            psnr_on_holes=mean_of([pair.psnr_on_holes for pair in pairs]),
            pairs=tuple(pairs),
        )
        for name, pairs in found.items()
    }


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are there; None where none is."""
    present = [value for value in values if value is not None]
    return float(np.mean(present)) if present else None


@dataclass
class _Sums:
    """Squared differences of colours, and how many pixels they are of."""

    squared: float = 0.0
    pixels: int = 0

    def add(self, squared: Float64) -> None:
        self.squared += float(squared.sum())
        self.pixels += len(squared)

    @property
    def psnr(self) -> float | None:
        return decibels(self.squared / self.pixels) if self.pixels else None


def _pairs(
    source: ClipDepths,
    target: ClipDepths,
    frames: Mapping[str, tuple[UInt8, UInt8]],
    stride: int,
    tolerance: float,
) -> dict[str, PairConsistency]:
    """One ordered pair of clips: source and target frames of each method."""
    sums = {name: (_Sums(), _Sums()) for name in frames}
    views = views_of(source.cameras, source.depths)
    looked_at = 0
    for number, view in enumerate(views_of(target.cameras, target.depths)):
        if number == 0 or number % stride:
            continue
        rows, columns = np.nonzero(view.depth > 0)
        points = view.points(rows, columns)
        for other in range(stride, len(views), stride):
            looked_at += view.depth.size
            seen = seen_by(views[other], points, tolerance=tolerance)
            u, v = seen.u[seen.visible], seen.v[seen.visible]
            at = number, rows[seen.visible], columns[seen.visible]
            for name, (from_source, on_target) in frames.items():
                expected = bilinear(from_source[other].astype(np.float64), u, v)
                squared = ((expected - on_target[at]) ** 2).mean(axis=-1)
                everywhere, on_holes = sums[name]
                everywhere.add(squared)
                if target.holes is not None:
                    on_holes.add(squared[target.holes[at]])
    return {
        name: PairConsistency(
            source=source.id,
            target=target.id,
            covered=everywhere.pixels / max(looked_at, 1),
            psnr=everywhere.psnr,
            psnr_on_holes=on_holes.psnr,
        )
        for name, (everywhere, on_holes) in sums.items()
    }
