"""How well frames agree on given depths: neighbours, plane-induced warps, window correlation.

Owns the choice of neighbours, the warp of a neighbour's image onto a frame for hypothetical
depths, and the score of every hypothesis. What is made of the scores is stereo.py's matter.

Sources: Collins, "A space-sweep approach to true multi-image matching" (CVPR 1996) for the
sweep of planes; Lewis, "Fast normalized cross-correlation" (1995), and Yoo and Han, "Fast
normalized cross-correlation" (2009), for window sums that are shared by all pixels; Kang,
Szeliski and Chai, "Handling occlusions in dense multi-view stereo" (CVPR 2001), for scoring by
the best half of the neighbours; Yoon and Kweon, "Adaptive support-weight approach for
correspondence search" (PAMI 2006), for windows that keep to one surface. Written from these
ideas.

Element-wise operations and sums of fixed order alone, no matrix product over pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from worldstereo.types import Cameras

Float64 = NDArray[np.float64]

# How far the image of a point moves for a change of log depth by one, in focal lengths (for a
# sideways move this is baseline / depth): below MIN_PARALLAX a neighbour tells nothing, above
# MAX_PARALLAX it looks too different; the nearest to BEST_PARALLAX are taken.
MIN_PARALLAX, BEST_PARALLAX, MAX_PARALLAX = 0.01, 0.1, 1.0
# A neighbour shows at least this share of the frame at the typical depth.
MIN_SHARED_VIEW = 0.4
# Frames are judged by this many points a side.
PROBES = 7
# Added to a window's variance, in grey levels 0..1: about that of rounding to 8 bits, so that
# flat windows correlate with nothing.
NOISE_VARIANCE = (1 / 255) ** 2
# Rows and columns, relative to the pixel, that a weighted window samples; its weights fall to 1/e
# at a difference of SUPPORT_GREY grey levels 0..1, and as a Gaussian over SUPPORT_PIXELS pixels.
SUPPORT, SUPPORT_GREY, SUPPORT_PIXELS = (-3, -1, 0, 1, 3), 0.05, 3.0
# Score where a neighbour does not see the point.
UNSEEN = -1.0
# Depth in the neighbour over depth in the reference below which a point counts as behind it.
NEAREST_Z = 1e-3
# Hypotheses x pixels that are warped at a time: what fits a core's cache, and bounds memory.
CANDIDATES_PER_CHUNK = 100_000


def choose_neighbours(cameras: Cameras, depth: float, count: int) -> list[list[int]]:
    """For each frame the frames that tell most about its depths.

    Rays through a grid of pixels are projected into every other frame at ``depth``. A frame is
    useful where it sees enough of these points and where a change of depth moves them enough;
    of the useful ones those are taken whose parallax is nearest to ``BEST_PARALLAX`` (as a
    ratio), ties by frame number. A camera that only turns or zooms has no parallax at all.

    Args:
        cameras: F cameras.
        depth: typical depth of the scene, in scene units.
        count: the most neighbours of a frame.

    Returns:
        For each frame at most ``count`` frame numbers, the best first; may be empty.
    """
    parallax, shared = _parallax(cameras, depth)
    useful = (parallax >= MIN_PARALLAX) & (parallax <= MAX_PARALLAX) & (shared >= MIN_SHARED_VIEW)
    with np.errstate(divide="ignore"):
        # Rounded, so that frames to the left and right tie whatever the last digits say.
        distance = np.round(np.abs(np.log(parallax / BEST_PARALLAX)), 6)
    distance[~useful] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")
    return [
        [int(j) for j in row[:count] if np.isfinite(distance[i, j])] for i, row in enumerate(order)
    ]


def _parallax(cameras: Cameras, depth: float) -> tuple[Float64, Float64]:
    """[F, F] parallax of frame i's points in frame j, and the share of them that j sees."""
    matrices = cameras.camera_from_world.astype(np.float64)
    inverse = np.linalg.inv(matrices)
    pinholes = cameras.intrinsics.astype(np.float64)
    steps = (np.arange(PROBES) + 0.5) / PROBES
    u, v = (part.ravel() for part in np.meshgrid(steps * cameras.width, steps * cameras.height))
    pixels = np.stack([u, v, np.ones_like(u)])
    count = len(cameras)
    parallax, shared = np.zeros((count, count)), np.zeros((count, count))
    for i in range(count):
        rays = np.linalg.inv(pinholes[i]) @ pixels
        for j in range(count):
            move = matrices[j] @ inverse[i]
            turned = move[:3, :3] @ rays
            x, y, z = turned * depth + move[:3, 3:]
            seen = z > 1e-6 * depth
            safe = np.where(seen, z, 1.0)
            # d(x / z) / d(log depth) = depth (turned_x z - turned_z x) / z^2.
            across = np.hypot(turned[0] * z - turned[2] * x, turned[1] * z - turned[2] * y)
            focal = pinholes[j][[0, 1], [0, 1]]
            column = focal[0] * x / safe + pinholes[j][0, 2]
            row = focal[1] * y / safe + pinholes[j][1, 2]
            seen &= (column > 0) & (column < cameras.width) & (row > 0) & (row < cameras.height)
            shared[i, j] = seen.mean()
            if seen.any():
                parallax[i, j] = np.median((depth * across / safe**2)[seen])
    return parallax, shared


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows that pixels are compared by.

    Attributes:
        radius: of square windows in pixels, with 2 x radius + 1 rows and columns.
        weights: [T, H, W] weights of the pixels at ``SUPPORT`` x ``SUPPORT`` instead, rows
            first, their sum 1; None for square windows of even weight.
    """

    radius: int
    weights: Tensor | None = None

    def mean(self, images: Tensor) -> Tensor:
        """Means [N, H, W] over the windows of images [N, H, W]; borders repeat outwards."""
        if self.weights is None:
            return box_mean(images, self.radius)
        padded = _padded(images, max(SUPPORT))
        height, width = images.shape[1:]
        total, part = torch.zeros_like(images), torch.empty_like(images)
        for weight, (row, column) in zip(self.weights, _support(), strict=True):
            # A product and a sum, in place: a fused one rounds differently by length.
            torch.mul(padded[:, row : row + height, column : column + width], weight, out=part)
            total += part
        return total


@dataclass(frozen=True, eq=False)
class Reference:
    """The frame whose depths are sought.

    Attributes:
        grey: [H, W] in 0..1, minus its mean.
        mean: [H, W] window means.
        variance: [H, W] window variances.
        windows: what the two were taken over.
    """

    grey: Tensor
    mean: Tensor
    variance: Tensor
    windows: Windows


@dataclass(frozen=True, eq=False)
class Neighbour:
    """Another frame, and where it sees the reference's pixels.

    The pixel p = (u, v, 1) of the reference at inverse depth w lies at
    ``infinite`` p + w ``epipole``, in the neighbour's image coordinates that span [-1, 1].

    Attributes:
        grey: [H, W] in 0..1, minus the reference's mean.
        infinite: [3, H, W] homogeneous image coordinates at infinity, for every pixel.
        epipole: [3] homogeneous image coordinates of the reference's centre.
    """

    grey: Tensor
    infinite: Tensor
    epipole: tuple[float, float, float]


def reference_of(greys: Tensor, index: int, window: int) -> Reference:
    """Frame ``index`` of greys [F, H, W] in 0..1, compared by square windows of this radius."""
    return _reference(greys[index] - greys[index].mean(), Windows(window))


def weighted(reference: Reference) -> Reference:
    """The same frame, compared by windows that keep to pixels of about the same grey.

    Where a window lies across a silhouette, the pixels beyond it, which move differently, hardly
    count; such windows cost more.
    """
    grey = reference.grey
    height, width = grey.shape
    padded = _padded(grey[None], max(SUPPORT))[0]
    weights = []
    for row, column in _support():
        other = padded[row : row + height, column : column + width]
        apart = (row - max(SUPPORT)) ** 2 + (column - max(SUPPORT)) ** 2
        weights.append(
            torch.exp(-(other - grey).abs() / SUPPORT_GREY - apart / (2 * SUPPORT_PIXELS**2))
        )
    total = sum(weights[1:], weights[0])
    windows = Windows(reference.windows.radius, torch.stack([part / total for part in weights]))
    return _reference(grey, windows)


def _reference(grey: Tensor, windows: Windows) -> Reference:
    mean, square = windows.mean(torch.stack([grey, grey * grey]))
    return Reference(grey, mean, (square - mean * mean).clamp_min(0), windows)


def _support() -> list[tuple[int, int]]:
    """Rows and columns of a weighted window in an image padded by max(SUPPORT)."""
    return [(max(SUPPORT) + row, max(SUPPORT) + column) for row in SUPPORT for column in SUPPORT]


def neighbour_of(greys: Tensor, cameras: Cameras, index: int, other: int) -> Neighbour:
    """Frame ``other`` as a neighbour of frame ``index``; greys [F, H, W] of the cameras' size."""
    height, width = cameras.height, cameras.width
    matrices = cameras.camera_from_world.astype(np.float64)
    pinholes = cameras.intrinsics.astype(np.float64)
    move = matrices[other] @ np.linalg.inv(matrices[index])
    span = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]]) @ pinholes[other]
    infinite = span @ move[:3, :3] @ np.linalg.inv(pinholes[index])
    epipole = span @ move[:3, 3]
    device = greys.device
    u = (torch.arange(width, dtype=torch.float64, device=device) + 0.5)[None, :]
    v = (torch.arange(height, dtype=torch.float64, device=device) + 0.5)[:, None]
    at_infinity = torch.stack([a * u + b * v + c for a, b, c in infinite.tolist()]).float()
    x, y, z = (float(value) for value in epipole)
    return Neighbour(greys[other] - greys[index].mean(), at_infinity, (x, y, z))


def score_depths(
    reference: Reference, neighbours: list[Neighbour], inverse_depths: Tensor
) -> Tensor:
    """How well the neighbours agree with the reference at hypothetical depths.

    The zero-mean normalised cross-correlation of the windows around a pixel and around where a
    neighbour sees it, of which the mean over the best half of the neighbours is taken: a point
    that is hidden in some is judged by the others.

    Args:
        reference: the frame.
        neighbours: at least one.
        inverse_depths: [D, H, W], or [D, 1, 1] for planes; >= 0, one over scene units.

    Returns:
        [D, H, W] in [-1, 1]; -1 where too few neighbours see the point.
    """
    height, width = reference.grey.shape
    size = max(1, CANDIDATES_PER_CHUNK // (height * width))
    keep = (len(neighbours) + 1) // 2
    parts = []
    for chunk in torch.split(inverse_depths, size):
        best = [torch.full((len(chunk), height, width), UNSEEN, device=chunk.device)] * keep
        for neighbour in neighbours:
            score = _correlation(reference, neighbour, chunk)
            # The best so far are sorted; each new score is sifted in.
            for place in range(keep):
                better = torch.maximum(best[place], score)
                score = torch.minimum(best[place], score)
                best[place] = better
        total = best[0]
        for score in best[1:]:
            total = total + score
        parts.append(total / keep)
    return torch.cat(parts)


def _correlation(reference: Reference, neighbour: Neighbour, inverse_depths: Tensor) -> Tensor:
    """Correlations [D, H, W] with one neighbour. In place: fresh memory costs more than sums."""
    (x0, y0, z0), (dx, dy, dz) = neighbour.infinite, neighbour.epipole
    z = z0 + inverse_depths * dz
    # What lies behind the neighbour has no place in its image: NaN, which is nowhere inside.
    z.masked_fill_(z <= NEAREST_Z, torch.nan)
    places = torch.empty(*z.shape, 2, device=z.device)
    torch.div((inverse_depths * dx).add(x0), z, out=places[..., 0])
    torch.div((inverse_depths * dy).add(y0), z, out=places[..., 1])
    images = torch.empty(3, *z.shape, device=z.device)
    images[0] = functional.grid_sample(
        neighbour.grey.expand(len(z), 1, *neighbour.grey.shape),
        places,
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )[:, 0]
    torch.mul(images[0], images[0], out=images[1])
    torch.mul(images[0], reference.grey, out=images[2])
    mean, square, covariance = reference.windows.mean(images.flatten(0, 1)).view_as(images)
    covariance -= mean * reference.mean
    square -= mean.mul_(mean)
    square.clamp_min_(0).add_(NOISE_VARIANCE).mul_(reference.variance + NOISE_VARIANCE).rsqrt_()
    covariance *= square
    places.abs_()
    inside = torch.maximum(places[..., 0], places[..., 1]) < 1
    filled: Tensor = covariance.masked_fill_(~inside, UNSEEN)
    return filled


def pixels_per_step(neighbours: list[Neighbour], inverse_depth: float, step: float) -> float:
    """How far the image of the median pixel moves, in the neighbour in which it moves most.

    Args:
        neighbours: at least one.
        inverse_depth: where the step starts.
        step: its length in inverse depth.

    Returns:
        Pixels.
    """
    moves = []
    for neighbour in neighbours:
        height, width = neighbour.grey.shape
        (x0, y0, z0), (dx, dy, dz) = neighbour.infinite, neighbour.epipole
        z, moved_z = z0 + inverse_depth * dz, z0 + (inverse_depth + step) * dz
        x = (x0 + (inverse_depth + step) * dx) / moved_z - (x0 + inverse_depth * dx) / z
        y = (y0 + (inverse_depth + step) * dy) / moved_z - (y0 + inverse_depth * dy) / z
        move = torch.hypot(x * (width / 2), y * (height / 2))
        moves.append(float(torch.where((z > 0) & (moved_z > 0), move, 0.0).median()))
    return max(moves)


def box_mean(images: Tensor, radius: int) -> Tensor:
    """Means over windows of (2 radius + 1)^2 pixels; the border is repeated outwards.

    Args:
        images: [N, H, W].
        radius: >= 0.

    Returns:
        [N, H, W].
    """
    padded = _padded(images, radius)
    return _running_sum(_running_sum(padded, radius, 1), radius, 2).mul_(1 / (2 * radius + 1) ** 2)


def _padded(images: Tensor, radius: int) -> Tensor:
    return functional.pad(images, (radius, radius, radius, radius), mode="replicate")


def _running_sum(images: Tensor, radius: int, axis: int) -> Tensor:
    """Sums of 2 radius + 1 consecutive rows or columns."""
    length = images.shape[axis] - 2 * radius
    total = images.narrow(axis, 0, length).clone()
    for offset in range(1, 2 * radius + 1):
        # In place: fresh memory for every sum takes several times as long.
        total += images.narrow(axis, offset, length)
    return total
