"""What a source of depth gives, whoever estimates it.

Owns the protocol alone. ``provided.py`` reads a file that the user gave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldstereo.types import Bool, Float32, UInt8


@dataclass(frozen=True, eq=False)
class DepthMap:
    """Depth of one image.

    Attributes:
        depth: [H, W] float32 along the camera's z, 0 = invalid; of the image's size.
        metric: True where lengths are metres, False where they are in the scene's own unit.
        intrinsics: [3, 3] float32 in pixels of H x W, where the source estimates them.
    """

    depth: Float32
    metric: bool
    intrinsics: Float32 | None = None

    @property
    def valid(self) -> Bool:
        """[H, W] True where there is a depth."""
        return np.asarray(self.depth > 0)


class DepthSource(Protocol):
    """Gives the depth of an image."""

    def depth_of(self, image: UInt8) -> DepthMap:
        """Depth of an RGB image [H, W, 3] uint8.

        Raises:
            MediaError: there is no usable depth for this image.
        """
        ...
