"""Picture metrics over masks: PSNR and SSIM of a clip's frames against the true ones.

Owns the definitions (docs/evaluation.md). Masks name the pixels that count: a metric over a
mask without pixels is None, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import ndimage

from worldstereo.types import Bool, UInt8

Float64 = NDArray[np.float64]

PEAK = 255.0
# Equal pictures have no finite PSNR; whatever is above is written as this.
HIGHEST_PSNR_DB = 100.0
# ITU-R BT.601 luma of RGB, which SSIM is computed on.
LUMA = np.array([0.299, 0.587, 0.114])
# Wang, Bovik, Sheikh, Simoncelli 2004.
WINDOW, SIGMA, K1, K2 = 11, 1.5, 0.01, 0.03


class ImageScores(BaseModel):
    """One clip's scores over one mask.

    Attributes:
        share: pixels that count, of all pixels of the frames.
        mse: mean squared error of all pixels that count and their channels, of 255^2; null
            where none counts.
        psnr: dB, from ``mse``, at most 100.
        ssim: mean of the SSIM maps where they are defined and the mask counts; null where
            there is no such pixel.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float
    mse: float | None
    psnr: float | None
    ssim: float | None


def image_scores(frames: UInt8, truth: UInt8, masks: Mapping[str, Bool]) -> dict[str, ImageScores]:
    """Score a clip over several masks.

    Args:
        frames: [F, H, W, 3] uint8 RGB.
        truth: the same of what should be seen.
        masks: [F, H, W] bool each, True where a pixel counts.

    Returns:
        The scores of each mask, pooled over all frames.
    """
    assert frames.shape == truth.shape, (frames.shape, truth.shape)
    squared = ((frames.astype(np.float64) - truth.astype(np.float64)) ** 2).mean(axis=-1)
    similarity, defined = ssim_maps(frames @ LUMA, truth @ LUMA)
    scores = {}
    for name, mask in masks.items():
        assert mask.shape == squared.shape, (name, mask.shape, squared.shape)
        both = mask & defined
        mse = float(squared[mask].mean()) if mask.any() else None
        scores[name] = ImageScores(
            share=float(mask.mean()),
            mse=mse,
            psnr=None if mse is None else decibels(mse),
            ssim=float(similarity[both].mean()) if both.any() else None,
        )
    return scores


def pooled(scores: Sequence[ImageScores]) -> ImageScores:
    """The scores of several clips of one size and length over one mask, as of one long clip.

    Clips count by their pixels: one whose mask is a few pixels must not outweigh the others. The
    SSIM is weighted by the share of the mask.
    """
    masked = [score for score in scores if score.mse is not None and score.share > 0]
    structured = [score for score in masked if score.ssim is not None]
    mse = _weighted([(score.share, score.mse or 0.0) for score in masked])
    return ImageScores(
        share=float(np.mean([score.share for score in scores])) if scores else 0.0,
        mse=mse,
        psnr=None if mse is None else decibels(mse),
        ssim=_weighted([(score.share, score.ssim or 0.0) for score in structured]),
    )


def _weighted(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Mean of the second numbers, weighted by the first; None where there are none."""
    total = sum(weight for weight, _ in pairs)
    return sum(weight * value for weight, value in pairs) / total if total > 0 else None


def decibels(mean_squared_error: float) -> float:
    """PSNR of 8-bit pictures: 10 log10(255^2 / MSE), at most 100 dB."""
    if mean_squared_error <= 0:
        return HIGHEST_PSNR_DB
    return min(HIGHEST_PSNR_DB, float(10 * np.log10(PEAK**2 / mean_squared_error)))


def psnr(frames: UInt8, truth: UInt8, mask: Bool | None = None) -> float | None:
    """PSNR in dB over the pixels of a mask, all three channels; None where none counts.

    Args:
        frames: [..., 3] uint8.
        truth: the same shape.
        mask: [...] bool; None: every pixel counts.
    """
    difference = frames.astype(np.float64) - truth.astype(np.float64)
    if mask is not None:
        difference = difference[mask]
    return decibels(float((difference**2).mean())) if difference.size else None


def ssim(first: UInt8, second: UInt8) -> float:
    """Mean SSIM of two RGB pictures [H, W, 3] on luma, both sides at least 11 pixels."""
    maps, defined = ssim_maps((first @ LUMA)[None], (second @ LUMA)[None])
    assert defined.any(), first.shape
    return float(maps[defined].mean())


def ssim_maps(first: Float64, second: Float64) -> tuple[Float64, Bool]:
    """SSIM around each pixel (Wang et al. 2004, equation 13) of pictures of 0..255.

    An 11x11 Gaussian window of sigma 1.5, weights of sum 1, K1 = 0.01, K2 = 0.03, L = 255. As
    in the authors' program the index is defined where the whole window lies in the picture.

    Args:
        first: [F, H, W], one channel.
        second: the same shape.

    Returns:
        [F, H, W] SSIM, and where it is defined.
    """
    c1, c2 = (K1 * PEAK) ** 2, (K2 * PEAK) ** 2
    mean_x, mean_y = _blurred(first), _blurred(second)
    variance_x = _blurred(first * first) - mean_x**2
    variance_y = _blurred(second * second) - mean_y**2
    covariance = _blurred(first * second) - mean_x * mean_y
    maps = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2)
    )
    half = WINDOW // 2
    defined = np.zeros(first.shape, dtype=np.bool_)
    defined[:, half:-half, half:-half] = min(first.shape[1:]) >= WINDOW
    return maps, defined


def _blurred(pictures: Float64) -> Float64:
    offsets = np.arange(WINDOW) - WINDOW // 2
    window = np.exp(-(offsets**2) / (2 * SIGMA**2))
    window /= window.sum()
    rows = ndimage.correlate1d(pictures, window, axis=1)
    return np.asarray(ndimage.correlate1d(rows, window, axis=2))
