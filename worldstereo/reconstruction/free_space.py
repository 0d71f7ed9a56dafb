"""Points that float where frames look through.

Owns the vote of the clips' frames on points of the fused cloud: a frame whose depth agrees with
a point supports it, a frame that sees something clearly behind it contradicts it (Merrell et
al., "Real-time visibility-based fusion of depth maps", ICCV 2007, in its simplest form).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from worldstereo.reconstruction.align import Alignment
from worldstereo.reconstruction.clip_depths import ClipDepths
from worldstereo.types import Bool, Float32

# Frames of a clip that vote, evenly spread.
VOTING_FRAMES = 7
# A point goes when at least so many frames contradict it, and more than support it.
MIN_CONFLICTS = 2


def uncontradicted(
    points: Float32,
    clips: Sequence[ClipDepths],
    alignments: Sequence[Alignment],
    tolerance: float,
) -> Bool:
    """Which points the frames do not see through.

    Args:
        points: [P, 3] in world coordinates.
        clips: the clips that vote.
        alignments: one for each of them.
        tolerance: share of the depth within which a frame's depth agrees with a point's; a
            point nearer than that is contradicted, one behind it is hidden and not judged.

    Returns:
        [P] bool.
    """
    support = np.zeros(len(points), dtype=np.int32)
    conflict = np.zeros(len(points), dtype=np.int32)
    for clip, alignment in zip(clips, alignments, strict=True):
        for frame in voting_frames(len(clip)):
            seen = clip.seen(frame, points)
            depth = seen.depth * alignment.frame_factors[frame]
            known = depth > 0
            support[seen.index[known & (np.abs(seen.z - depth) <= tolerance * depth)]] += 1
            conflict[seen.index[known & (seen.z < (1 - tolerance) * depth)]] += 1
    return np.asarray((conflict < MIN_CONFLICTS) | (conflict <= support))


def voting_frames(count: int) -> list[int]:
    """Up to ``VOTING_FRAMES`` numbers of ``count`` frames, evenly spread from first to last."""
    number = min(count, VOTING_FRAMES)
    return [round(i * (count - 1) / max(number - 1, 1)) for i in range(number)]
