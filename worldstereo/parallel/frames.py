"""How a clip's frames are split over ranks. Owns the counts; who sends what is not decided here."""

from __future__ import annotations


def split_frames(frames: int, parts: int) -> list[int]:
    """How many frames each rank gets: ``frames // parts``, the rest one each to the last ranks.

    Args:
        frames: >= 0.
        parts: number of ranks, >= 1.

    Returns:
        ``parts`` counts whose sum is ``frames``.
    """
    assert frames >= 0, frames
    assert parts >= 1, parts
    share, rest = divmod(frames, parts)
    return [share] * (parts - rest) + [share + 1] * rest
