"""Short sentences about a world: what its start view shows, colours included.

Owns the words between the phrases of the pieces.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from worldstereo.synthetic.layout import Layout
from worldstereo.synthetic.ornaments import listed

# Share of the start view that a thing fills at least to be named, and how many are named.
NAMED_SHARE, MOST_NAMED = 0.004, 8


def caption_of(layout: Layout, parts: NDArray[np.int64]) -> str:
    """The caption of a layout.

    Args:
        layout: of the world.
        parts: [H, W] which part each pixel of the start view shows.
    """
    names = seen_phrases(layout, parts)
    middle = (len(names) + 1) // 2 if len(names) > 4 else len(names)
    sentences = [layout.setting]
    if names:
        sentences.append(f"It shows {listed(names[:middle])}.")
    if names[middle:]:
        also = listed(names[middle:])
        sentences.append(f"There {'is' if len(names) - middle == 1 else 'are'} also {also}.")
    # The builders write "a" before every colour and wood.
    return re.sub(r"\b([Aa]) (?=[aeiou])", r"\1n ", " ".join(sentences))


def seen_phrases(layout: Layout, parts: NDArray[np.int64]) -> list[str]:
    """Phrases of the pieces that are seen, those that fill most first; no phrase twice."""
    owners = np.repeat(np.arange(len(layout.pieces)), [len(p.parts) for p in layout.pieces])
    shares = np.bincount(owners[parts.ravel()], minlength=len(layout.pieces)) / parts.size
    phrases: list[str] = []
    for piece in np.argsort(-shares, kind="stable"):
        phrase = layout.pieces[piece].phrase
        if shares[piece] >= NAMED_SHARE and phrase and phrase not in phrases:
            phrases.append(phrase)
    return phrases[:MOST_NAMED]
