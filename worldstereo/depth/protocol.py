"""What a source of depth gives, whoever estimates it.

Owns the protocol and its value. ``provided.py`` reads a file that the user gave;
``estimators.py`` names the networks that estimate one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from worldstereo.errors import MediaError
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


def metric_map(depth: Float32, intrinsics: Float32, where: str) -> DepthMap:
    """What a network estimated, in metres, as a map: what is no depth becomes 0.

    Args:
        depth: [H, W] float32; zero, negative and non-finite values are no depth.
        intrinsics: [3, 3] in pixels of H x W.
        where: the network, for the error.

    Raises:
        MediaError: not one pixel has a depth.
    """
    clean = np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(0))
    if not clean.any():
        raise MediaError(
            "no depth is found in the image",
            where=where,
            got=f"no valid pixel of {depth.shape[0]} x {depth.shape[1]}",
            fix="give the depth, or an image that shows more than sky",
        )
    return DepthMap(clean.astype(np.float32, copy=False), True, intrinsics.astype(np.float32))


class DepthSource(Protocol):
    """Gives the depth of images: estimated, read from a file, or asked of a service."""

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        """Depth of RGB images.

        An image's depth does not depend on the images that it is asked for together with.

        Args:
            images: each [H, W, 3] uint8; sizes may differ; may be none at all.

        Returns:
            One map an image, in their order, each of its image's size.

        Raises:
            MediaError: there is no usable depth for one of the images.
        """
        ...
