"""A trajectory's renders, decoded for one clip: thinned to its keyframes, at working size.

Owns thinning and what happens to a hole mask on its way through a lossy codec. Frame 0 of the
render stays as rendered; whoever makes the clip puts the start image there.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

from worldstereo.formats.images import resize_bicubic
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.formats.video import read_video
from worldstereo.types import Bool, TrajectoryInput, UInt8

# Grey levels above this are holes: half of the range, since the masks' codec is lossy.
MASK_THRESHOLD = 127


def thin(count: int, nframe: int) -> list[int]:
    """Which ``nframe`` of ``count`` cameras or frames make a clip: evenly spaced, ends included.

    Source: the published loader, ``numpy.linspace(0, count - 1, nframe, dtype=int)``.
    """
    assert count >= nframe >= 1, (count, nframe)
    return [int(index) for index in np.linspace(0, count - 1, nframe, dtype=int)]


def load_render(
    trajectory: TrajectoryInput,
    size: tuple[int, int],
    nframe: int,
    limits: Limits = DEFAULT_LIMITS,
) -> tuple[UInt8, Bool]:
    """Decode the render and the hole mask of a trajectory that has them.

    Args:
        trajectory: with ``render`` and ``render_mask`` of ``render_frames`` frames.
        size: working size (height, width).
        nframe: F, the keyframes of a clip.
        limits: bounds of the decoder.

    Returns:
        The render [F, height, width, 3] uint8 RGB, resized bicubic, and the holes
        [F, height, width] bool, True where nothing was rendered: the mask's grey resized
        bilinear, then above half. Frame 0 of an iterative trajectory has no holes, since it is
        a generated frame.

    Raises:
        MediaError: a video has changed since the scene was read: it is broken or too short.
    """
    assert trajectory.render is not None, trajectory.id
    assert trajectory.render_mask is not None, trajectory.id
    indices = thin(trajectory.render_frames, nframe)
    render = read_video(trajectory.render, limits=limits, indices=indices)
    mask = read_video(trajectory.render_mask, limits=limits, indices=indices)
    video = np.stack([resize_bicubic(frame, size) for frame in render])
    holes = np.stack([hole_mask(frame, size) for frame in mask])
    if trajectory.starts_after is not None:
        holes[0] = False
    return video, holes


def hole_mask(frame: UInt8, size: tuple[int, int]) -> Bool:
    """The holes of one decoded mask frame.

    Args:
        frame: [H, W, 3] uint8, white where nothing was rendered.
        size: (height, width) to come out.

    Returns:
        [height, width] bool.
    """
    height, width = size
    grey = Image.fromarray(frame).convert("L")
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    holes: Bool = np.asarray(grey) > MASK_THRESHOLD
    return holes
