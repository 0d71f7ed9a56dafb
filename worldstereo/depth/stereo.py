"""Depth of a clip whose cameras are known, by multi-view stereo: no weights, no training.

Owns the steps from frames to depth maps: the range of depths, the sweep of planes, refinement,
and the filters that leave out what is not certain. How hypotheses are scored lies in
plane_sweep.py, with the sources. Consistency between the frames' depths follows Schönberger et
al., "Pixelwise view selection for unstructured multi-view stereo" (ECCV 2016), in its simplest
form; the confidence filters are those usual in stereo (Hu and Mordohai, PAMI 2012).

The same bits for the same input on one thread, whatever the chunks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from worldstereo.depth.plane_sweep import (
    BEST_PARALLAX,
    Neighbour,
    Reference,
    choose_neighbours,
    neighbour_of,
    pixels_per_step,
    reference_of,
    score_depths,
    weighted,
)
from worldstereo.errors import CameraError, MediaError, ParameterError
from worldstereo.geometry.cameras import camera_centers, check_cameras, check_intrinsics
from worldstereo.types import Cameras, Float32, UInt8

NEIGHBOURS, WINDOW = 4, 3
# As many planes as move the image by PLANE_PIXELS each in a neighbour with the best parallax.
PLANE_PIXELS, FEWEST_PLANES, MOST_PLANES = 0.75, 32, 192
# Two frames' depths of one point agree within this share of the depth.
TOLERANCE = 0.02
# This many other frames must agree, or all there are to ask where they are fewer.
AGREEING_FRAMES = 3
# A pixel is certain where its score is at least MIN_SCORE, where its cost (1 - score) is less
# than 1 / UNIQUENESS of that of any depth PEAK_PIXELS and more away along the epipolar line, and
# where the standard deviation of its window is at least MIN_TEXTURE grey levels of 255.
MIN_SCORE, UNIQUENESS, PEAK_PIXELS, MIN_TEXTURE = 0.7, 1.2, 2.0, 2.0
# The planes are swept over images whose longer side is at most this; larger images are halved
# until they fit, and the depths are refined from size to size.
SWEEP_SIDE = 256
# Hypotheses around a depth when it is refined, in refinement steps: half a plane at the smallest
# size, and half of that at each next one and in the last pass.
OFFSETS = (-2, -1, 0, 1, 2)
# Square windows carry the depth of a silhouette outwards by up to their radius. Before the last
# pass every pixel may therefore take the depth of a pixel so many rows or columns away, where
# weighted windows score it higher by PROPAGATION_MARGIN.
PROPAGATION, PROPAGATION_MARGIN = (4, 8), 0.02
# Where no range is given: planes evenly spaced in log depth between these multiples of the
# largest distance between two cameras, over small images of at most SEARCH_FRAMES frames.
SEARCH_NEAR, SEARCH_FAR, SEARCH_PLANES = 0.05, 50.0, 64
SEARCH_SIDE, SEARCH_FRAMES = 96, 6
# Frames are compared that would be good for one of these depths, and planes up to SEARCH_REACH
# from the best are the same peak.
SEARCH_GUESSES, SEARCH_REACH = (0.5, 2.0, 8.0), 3
# The range found holds the certain depths between these quantiles, widened by SEARCH_MARGIN; a
# smaller share of certain pixels is no range.
SEARCH_QUANTILES, SEARCH_MARGIN, SEARCH_SHARE = (0.02, 0.98), 1.25, 0.01
# Rec. 601 luma.
GREY_WEIGHTS = (0.299, 0.587, 0.114)


def stereo_depths(
    frames: UInt8,
    cameras: Cameras,
    *,
    near: float | None = None,
    far: float | None = None,
    planes: int | None = None,
    neighbours: int = NEIGHBOURS,
    window: int = WINDOW,
    tolerance: float = TOLERANCE,
    device: str = "cpu",
) -> Float32:
    """Depth maps of a clip from its frames and cameras (see the module).

    A frame is compared with the frames that have the best baseline for the scene's depth. Where
    none has any, as when the camera only turns or zooms, its map is empty; so are the pixels
    without texture, without a single best depth, and those on which fewer than three other
    frames agree (all, where there are fewer to ask).

    Args:
        frames: [F, H, W, 3] RGB, F >= 1.
        cameras: F cameras, whose unit is that of the depths; any image size of the same ratio.
        near: the smallest depth along z that is looked for, > 0.
        far: the largest, > near. Where either is None, it is found by a coarse search between
            0.05 and 50 times the largest distance between two cameras.
        planes: planes of the sweep, evenly spaced in inverse depth, >= 8; None: so many that one
            step moves the image by about 0.75 pixels, 32 to 192.
        neighbours: the most frames that a frame is compared with, >= 1; twice as many are asked
            whether they agree.
        window: radius of the compared windows in pixels, >= 1.
        tolerance: agreement between frames, as a share of the depth, > 0.
        device: torch device that computes.

    Returns:
        [F, H, W] float32 along each camera's z, in the cameras' unit; 0 = invalid.

    Raises:
        CameraError: another number of cameras than of frames; a camera is not finite.
        MediaError: the frames have another shape or type.
        ParameterError: a number is out of its range.
    """
    check_clip(frames, cameras)
    _check_parameters(near, far, planes, neighbours, window, tolerance)
    cameras = cameras.resized(*frames.shape[1:3])
    with torch.inference_mode():
        greys = _greys(frames, device)
        if near is None or far is None:
            found = _search_range(greys, cameras, neighbours, window)
            if found is None:
                return np.zeros(frames.shape[:3], dtype=np.float32)
            near = near or min(found[0], (far or np.inf) / 2)
            far = far or max(found[1], near * 2)
        return _swept(greys, cameras, near, far, planes, neighbours, window, tolerance)


def _swept(
    greys: Tensor,
    cameras: Cameras,
    near: float,
    far: float,
    planes: int | None,
    neighbours: int,
    window: int,
    tolerance: float,
) -> Float32:
    levels = _levels(greys, cameras)
    if planes is None:
        planes = _plane_count(levels[0].cameras, near, far)
    sweep = torch.linspace(1 / far, 1 / near, planes, dtype=torch.float64).float()
    asked = choose_neighbours(cameras, math.sqrt(near * far), 2 * neighbours)
    inverse = torch.zeros_like(greys)
    for index, others in enumerate(asked):
        if others:
            inverse[index] = _frame_depth(
                levels, index, others[:neighbours], sweep.to(greys.device), window
            )
    return np.asarray(_consistent(inverse, cameras, asked, tolerance).cpu().numpy())


@dataclass(frozen=True, eq=False)
class _Level:
    """The clip at one size: greys [F, h, w] in 0..1 and cameras of that size."""

    greys: Tensor
    cameras: Cameras


def _greys(frames: UInt8, device: str) -> Tensor:
    red, green, blue = torch.from_numpy(np.ascontiguousarray(frames)).to(device).float().unbind(-1)
    weights = [weight / 255 for weight in GREY_WEIGHTS]
    return red * weights[0] + green * weights[1] + blue * weights[2]


def _levels(greys: Tensor, cameras: Cameras, side: int = SWEEP_SIDE) -> list[_Level]:
    """The clip at its own size and halved, until it fits ``side``; smallest first."""
    levels = [_Level(greys, cameras)]
    height, width = greys.shape[1:]
    while max(height, width) > side and min(height, width) > 1:
        height, width = (height + 1) // 2, (width + 1) // 2
        halved = functional.interpolate(levels[0].greys[:, None], (height, width), mode="area")
        levels.insert(0, _Level(halved[:, 0], cameras.resized(height, width)))
    return levels


def _plane_count(cameras: Cameras, near: float, far: float) -> int:
    focal = float(np.median(cameras.intrinsics[:, 0, 0]))
    pixels = (1 / near - 1 / far) * BEST_PARALLAX * math.sqrt(near * far) * focal
    return int(np.clip(math.ceil(pixels / PLANE_PIXELS) + 1, FEWEST_PLANES, MOST_PLANES))


def _frame_depth(
    levels: list[_Level], index: int, others: list[int], sweep: Tensor, window: int
) -> Tensor:
    """Inverse depths [H, W] of one frame, 0 where they are not certain."""
    step = float(sweep[1] - sweep[0])
    inverse, unique = torch.empty(0), torch.empty(0)
    for number, level in enumerate(levels):
        reference = reference_of(level.greys, index, window)
        views = [neighbour_of(level.greys, level.cameras, index, other) for other in others]
        if number == 0:
            moved = pixels_per_step(views, float(sweep[len(sweep) // 2]), step)
            scores = score_depths(reference, views, sweep[:, None, None])
            place, unique = _best_plane(scores, math.ceil(PEAK_PIXELS / max(moved, 0.1)))
            inverse = sweep[0] + step * place
        else:
            inverse, unique = (
                functional.interpolate(part[None, None].float(), reference.grey.shape)[0, 0]
                for part in (inverse, unique)
            )
        step /= 2
        inverse, _ = _refined(reference, views, inverse, step)
    reference = weighted(reference)
    inverse = _propagated(reference, views, inverse)
    inverse, score = _refined(reference, views, inverse, step / 2)
    certain = (unique > 0) & (score >= MIN_SCORE)
    certain &= reference.variance >= (MIN_TEXTURE / 255) ** 2
    return torch.where(certain, inverse, 0)


def _refined(
    reference: Reference, views: list[Neighbour], inverse: Tensor, step: float
) -> tuple[Tensor, Tensor]:
    """Better inverse depths [H, W] within two steps of smoothed ones, and their scores."""
    centre = _median(inverse)
    # Half of the farthest plane: what lies beyond is no depth any more.
    lowest = float(inverse.min()) / 2
    offsets = torch.tensor(OFFSETS, device=inverse.device)[:, None, None] * step
    place, score = _peak(score_depths(reference, views, (centre + offsets).clamp_min(lowest)))
    return (centre + (place + OFFSETS[0]) * step).clamp_min(lowest), score


def _propagated(reference: Reference, views: list[Neighbour], inverse: Tensor) -> Tensor:
    """Each pixel's inverse depth, or that of a pixel nearby where it scores clearly higher."""
    height, width = inverse.shape
    reach = max(PROPAGATION)
    padded = functional.pad(inverse[None], (reach, reach, reach, reach), mode="replicate")[0]
    moves = [(sign * far, 0) for far in PROPAGATION for sign in (-1, 1)]
    moves += [(across, down) for down, across in moves]
    candidates = [inverse]
    candidates += [
        padded[reach + down : reach + down + height, reach + across : reach + across + width]
        for down, across in moves
    ]
    hypotheses = torch.stack(candidates)
    scores = score_depths(reference, views, hypotheses)
    scores[1:] -= PROPAGATION_MARGIN
    return hypotheses.gather(0, scores.argmax(dim=0)[None])[0]


def _best_plane(scores: Tensor, reach: int) -> tuple[Tensor, Tensor]:
    """The best plane's place [H, W], with fractions, and where no other is nearly as good.

    Planes up to ``reach`` from the best are the same peak. At either end of the range the true
    depth may lie beyond it, so that nothing is certain there.
    """
    place, best = _peak(scores)
    planes = torch.arange(len(scores), dtype=place.dtype, device=place.device)[:, None, None]
    rival = torch.where((planes - place).abs() > reach + 0.5, scores, -1.0).amax(dim=0)
    inside = (best >= scores[0]) & (best >= scores[-1])
    return place, inside & (1 - rival > UNIQUENESS * (1 - best))


def _peak(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Places [H, W] of the best of [D, H, W] scores, refined by a parabola, and those scores."""
    best = scores.argmax(dim=0)[None].clamp(1, len(scores) - 2)
    before, at, after = (scores.gather(0, best + side)[0] for side in (-1, 0, 1))
    bend = before - 2 * at + after
    shift = torch.where(bend < 0, 0.5 * (before - after) / bend, 0.0)
    return best[0] + shift.clamp(-0.5, 0.5), at


def _median(image: Tensor) -> Tensor:
    """Median over 3 x 3 pixels; the border is repeated outwards."""
    height, width = image.shape
    padded = functional.pad(image[None], (1, 1, 1, 1), mode="replicate")[0]
    shifted = [padded[y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return torch.stack(shifted, dim=-1).median(dim=-1).values


def _consistent(
    inverse: Tensor, cameras: Cameras, asked: list[list[int]], tolerance: float
) -> Tensor:
    """Depths [F, H, W] on which other frames agree, from inverse depths."""
    depths = torch.where(inverse > 0, 1 / inverse, 0.0)
    kept = torch.zeros_like(depths)
    for index, others in enumerate(asked):
        votes = torch.zeros_like(depths[index], dtype=torch.int32)
        for other in others:
            view = neighbour_of(depths, cameras, index, other)
            votes += _agrees(view, inverse[index], depths[other], tolerance)
        needed = min(AGREEING_FRAMES, max(1, len(others)))
        kept[index] = torch.where(votes >= needed, depths[index], 0.0)
    return kept


def _agrees(view: Neighbour, inverse: Tensor, depth: Tensor, tolerance: float) -> Tensor:
    """Where [H, W] a neighbour's depth map holds the depth that it should."""
    height, width = depth.shape
    x, y, z = (a + inverse * b for a, b in zip(view.infinite, view.epipole, strict=True))
    inside = (inverse > 0) & (z > 0) & (x.abs() < z) & (y.abs() < z)
    safe = torch.where(inside, z, 1.0)
    column = ((torch.where(inside, x, 0.0) / safe + 1) * (width / 2)).long().clamp(0, width - 1)
    row = ((torch.where(inside, y, 0.0) / safe + 1) * (height / 2)).long().clamp(0, height - 1)
    expected = safe / torch.where(inside, inverse, 1.0)
    agrees: Tensor = inside & ((depth[row, column] - expected).abs() < tolerance * expected)
    return agrees


def _search_range(
    greys: Tensor, cameras: Cameras, neighbours: int, window: int
) -> tuple[float, float] | None:
    """Nearest and farthest depth of the scene, or None where nothing tells."""
    centers = camera_centers(torch.from_numpy(cameras.camera_from_world).double())
    largest = float((centers[:, None] - centers[None]).norm(dim=-1).max())
    # Below this a distance is the rounding of float32 matrices.
    if largest <= 1e-6 * float(centers.abs().max()):
        return None
    level = _levels(greys, cameras, SEARCH_SIDE)[0]
    ends = (largest * SEARCH_FAR, largest * SEARCH_NEAR)
    depths = torch.from_numpy(np.geomspace(*ends, SEARCH_PLANES)).float().to(greys.device)
    guesses = [
        choose_neighbours(cameras, guess * largest, (neighbours + 1) // 2)
        for guess in SEARCH_GUESSES
    ]
    found, pixels = [], 0
    for index in range(0, len(cameras), -(-len(cameras) // SEARCH_FRAMES)):
        others = sorted({other for chosen in guesses for other in chosen[index]})
        if not others:
            continue
        reference = reference_of(level.greys, index, window)
        views = [neighbour_of(level.greys, level.cameras, index, other) for other in others]
        scores = score_depths(reference, views, 1 / depths[:, None, None])
        _, unique = _best_plane(scores, SEARCH_REACH)
        best, place = scores.max(dim=0)
        certain = unique & (best >= MIN_SCORE)
        certain &= reference.variance >= (MIN_TEXTURE / 255) ** 2
        found.append(depths[place[certain]])
        pixels += place.numel()
    certain_depths = torch.cat(found) if found else depths[:0]
    if len(certain_depths) <= SEARCH_SHARE * pixels:
        return None
    low, high = np.quantile(certain_depths.cpu().numpy(), SEARCH_QUANTILES)
    return float(low) / SEARCH_MARGIN, float(high) * SEARCH_MARGIN


def check_clip(frames: UInt8, cameras: Cameras) -> None:
    """Refuse frames [F, H, W, 3] that are no clip, and cameras that are not those of F frames.

    Raises:
        MediaError: the frames have another shape or type.
        CameraError: another number of cameras; one is not finite.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not frames.size:
        raise MediaError(
            "the frames are no clip",
            where="frames",
            got=f"{list(frames.shape)} {frames.dtype}",
            allowed="[F, H, W, 3] uint8, at least one frame",
        )
    if len(frames) != len(cameras):
        raise CameraError(
            "a clip needs one camera a frame",
            where="cameras",
            got=f"{len(cameras)} cameras, {len(frames)} frames",
        )
    check_cameras(torch.from_numpy(cameras.camera_from_world))
    check_intrinsics(torch.from_numpy(cameras.intrinsics))


def _check_parameters(
    near: float | None,
    far: float | None,
    planes: int | None,
    neighbours: int,
    window: int,
    tolerance: float,
) -> None:
    smallest = near if near is not None else 0.0
    limits = (
        ("near", near is None or 0 < near < np.inf, near, "a depth > 0, or None"),
        ("far", far is None or smallest < far < np.inf, far, "a depth > near, or None"),
        ("planes", planes is None or planes >= 8, planes, ">= 8, or None"),
        ("neighbours", neighbours >= 1, neighbours, ">= 1"),
        ("window", window >= 1, window, "a radius >= 1 pixel"),
        ("tolerance", 0 < tolerance < 1, tolerance, "a share of the depth in (0, 1)"),
    )
    for name, good, value, allowed in limits:
        if not good:
            raise ParameterError(
                "a stereo parameter out of its range", where=name, got=str(value), allowed=allowed
            )
