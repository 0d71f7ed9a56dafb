"""PSNR and SSIM with known answers, and the trivial in-paintings."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.scenes import picture
from worldstereo.evaluation.images import (
    HIGHEST_PSNR_DB,
    LUMA,
    ImageScores,
    decibels,
    image_scores,
    pooled,
    psnr,
    ssim,
    ssim_maps,
)
from worldstereo.evaluation.inpainting import FILLS, fill_mean, fill_nearest, fill_pull_push

PICTURE = picture(3, (48, 64))


def slow_ssim(x: np.ndarray, y: np.ndarray, row: int, column: int) -> float:
    """Equation 13 of Wang et al. 2004 around one pixel, written out."""
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets[:, None] ** 2 + offsets[None] ** 2) / (2 * 1.5**2))
    window /= window.sum()
    a, b = (part[row - 5 : row + 6, column - 5 : column + 6] for part in (x, y))
    mean_a, mean_b = (window * a).sum(), (window * b).sum()
    variance_a, variance_b = (window * (a - mean_a) ** 2).sum(), (window * (b - mean_b) ** 2).sum()
    covariance = (window * (a - mean_a) * (b - mean_b)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    numerator = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float(numerator / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)))


def test_equal_pictures() -> None:
    assert psnr(PICTURE, PICTURE) == HIGHEST_PSNR_DB
    assert ssim(PICTURE, PICTURE) == pytest.approx(1)


@given(level=st.integers(1, 40))
@settings(max_examples=10)
def test_psnr_of_a_known_difference(level: int) -> None:
    dark = np.minimum(PICTURE, 200)
    expected = 20 * np.log10(255 / level)
    assert psnr(dark, dark + np.uint8(level)) == pytest.approx(expected)


def test_psnr_of_noise_of_a_known_level() -> None:
    random = np.random.default_rng(0)
    grey = np.full((200, 300, 3), 128, dtype=np.uint8)
    noisy = (grey + np.round(random.normal(scale=10, size=grey.shape))).astype(np.uint8)
    # Rounding adds a variance of 1 / 12.
    assert psnr(grey, noisy) == pytest.approx(10 * np.log10(255**2 / (100 + 1 / 12)), abs=0.05)


def test_psnr_counts_the_masks_pixels_alone() -> None:
    other = PICTURE.copy()
    mask = np.zeros(PICTURE.shape[:2], dtype=bool)
    mask[5:9, 7:20] = True
    other[~mask] = 255 - other[~mask]
    assert psnr(PICTURE, other, mask) == HIGHEST_PSNR_DB
    assert psnr(PICTURE, other, np.zeros_like(mask)) is None


def test_ssim_is_its_formula() -> None:
    other = picture(4, (48, 64))
    x, y = (PICTURE @ LUMA), (other @ LUMA)
    maps, defined = ssim_maps(x[None], y[None])
    assert defined.sum() == 38 * 54  # the whole window lies in the picture
    for row, column in ((5, 5), (42, 58), (20, 33)):
        assert maps[0, row, column] == pytest.approx(slow_ssim(x, y, row, column), abs=1e-9)
    assert ssim(PICTURE, other) == pytest.approx(ssim(other, PICTURE))
    assert ssim(PICTURE, other) < 0.9


def test_ssim_of_two_greys_is_what_the_means_leave() -> None:
    dark, bright = (np.full((20, 30, 3), value, dtype=np.uint8) for value in (100, 120))
    c1 = (0.01 * 255) ** 2
    expected = (2 * 100 * 120 + c1) / (100**2 + 120**2 + c1)
    assert ssim(dark, bright) == pytest.approx(expected)


def test_scores_over_masks() -> None:
    frames = np.stack([PICTURE, picture(5, (48, 64))])
    truth = frames.copy()
    truth[1] = np.where(truth[1] < 250, truth[1] + 5, truth[1])
    first = np.zeros(frames.shape[:3], dtype=bool)
    first[0] = True
    scores = image_scores(
        frames, truth, {"first": first, "all": np.ones_like(first), "none": ~np.ones_like(first)}
    )
    assert scores["first"].psnr == HIGHEST_PSNR_DB
    assert scores["first"].ssim == pytest.approx(1)
    assert scores["first"].share == 0.5
    # Pooled: half of the pixels have an error of 5.
    assert scores["all"].psnr == pytest.approx(10 * np.log10(255**2 / 12.5), abs=0.02)
    nothing = {"share": 0.0, "mse": None, "psnr": None, "ssim": None}
    assert scores["none"].model_dump() == nothing


def test_clips_are_pooled_by_their_pixels() -> None:
    large = ImageScores(share=0.3, mse=10.0, psnr=decibels(10.0), ssim=0.9)
    small = ImageScores(share=0.1, mse=50.0, psnr=decibels(50.0), ssim=None)
    empty = ImageScores(share=0.0, mse=None, psnr=None, ssim=None)
    both = pooled([large, small, empty])
    assert both.mse == pytest.approx(20)
    assert both.psnr == pytest.approx(10 * np.log10(255**2 / 20))
    assert both.ssim == pytest.approx(0.9)
    assert both.share == pytest.approx(0.4 / 3)
    assert pooled([empty]) == pooled([]) == empty


def test_a_mask_beside_the_defined_area_has_no_ssim() -> None:
    mask = np.zeros((1, 48, 64), dtype=bool)
    mask[0, :3] = True
    scores = image_scores(PICTURE[None], PICTURE[None], {"border": mask})["border"]
    assert scores.psnr == HIGHEST_PSNR_DB
    assert scores.ssim is None


@pytest.mark.parametrize("name", sorted(FILLS))
def test_a_fill_paints_holes_alone(name: str) -> None:
    frames = np.stack([PICTURE, picture(6, (48, 64)), PICTURE])
    holes = np.zeros(frames.shape[:3], dtype=bool)
    holes[0, 10:20, 12:40] = True
    holes[2] = True
    broken = np.where(holes[..., None], np.uint8(0), frames)
    filled = FILLS[name](broken, holes)
    np.testing.assert_array_equal(filled[~holes], frames[~holes])
    np.testing.assert_array_equal(filled[2], broken[2])  # nothing to take a colour from
    before, after = (psnr(part[0], frames[0], holes[0]) for part in (broken, filled))
    assert before is not None
    assert after is not None
    assert after > before + 2


def test_fills_of_known_colours() -> None:
    frame = np.zeros((1, 3, 9, 3), dtype=np.uint8)
    frame[0, :, 6:] = 200
    hole = np.zeros((1, 3, 9), dtype=bool)
    hole[0, :, 3:6] = True
    assert fill_mean(frame, hole)[0, 1, 4].tolist() == [100] * 3
    nearest = fill_nearest(frame, hole)[0, 1, :, 0]
    assert (nearest[3], nearest[5]) == (0, 200)
    smooth = fill_pull_push(frame, hole)[0, 1, :, 0].astype(int)
    assert np.all(np.diff(smooth) >= 0)
    assert 20 < smooth[4] < 180


def test_pull_push_of_one_colour_is_that_colour() -> None:
    frame = np.full((1, 37, 51, 3), 140, dtype=np.uint8)
    hole = np.random.default_rng(0).random((1, 37, 51)) < 0.7
    hole[0, 10:30, 10:40] = True
    frame[hole] = 0
    assert (fill_pull_push(frame, hole) == 140).all()
