"""Depths of views with one centre, each with a factor of its own: brought to one scale."""

import numpy as np
import pytest

from tests.builder import box_room
from worldstereo.builder.panorama_cameras import bank_cameras, polar_cameras
from worldstereo.depth.merge import MergedDepth, merge_depths
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import MediaError
from worldstereo.geometry.equirectangular import directions, pixel_directions
from worldstereo.types import Cameras, Float32, concatenate_cameras

CAMERAS = concatenate_cameras([bank_cameras(), polar_cameras()]).resized(180, 312)
SCALES = np.exp(np.random.default_rng(3).normal(0, 0.4, len(CAMERAS)))


@pytest.fixture(scope="module")
def exact() -> Float32:
    return box_room.views(CAMERAS)[1]


def maps(depths: Float32, *, metric: bool = True) -> list[DepthMap]:
    return [DepthMap(depth.astype(np.float32), metric) for depth in depths]


def log_errors(merged: MergedDepth) -> np.ndarray:
    """What the views' log scales are off by, up to the common one that nobody can know."""
    errors = np.log(merged.scales * SCALES)
    return np.asarray(errors - np.median(errors))


def test_scales_are_recovered(exact: Float32) -> None:
    merged = merge_depths(maps(exact * SCALES[:, None, None]), CAMERAS)
    assert np.abs(log_errors(merged)).max() < 1e-3
    assert np.median(merged.scales) == pytest.approx(1)
    assert merged.metric
    # Most pairs of neighbours overlap, and agree.
    assert len(merged.pairs) > 200
    assert max(abs(pair.offset) for pair in merged.pairs) < 3e-3
    assert {pair.first for pair in merged.pairs} | {pair.second for pair in merged.pairs} == set(
        range(len(CAMERAS))
    )


def test_distances_are_the_rooms(exact: Float32) -> None:
    merged = merge_depths(maps(exact * SCALES[:, None, None]), CAMERAS)
    found, (_, true) = merged.distances(pixel_directions(64, 128)), box_room.panorama(64)
    assert found.shape == true.shape
    errors = np.abs(np.log(found / true) - np.median(np.log(found / true)))
    assert np.median(errors) < 1e-3
    assert np.quantile(errors, 0.98) < 1e-2
    # What the median view says is what a metre is.
    assert np.median(found / true) == pytest.approx(np.median(SCALES), rel=1e-3)


def test_one_bent_view_spoils_no_other(exact: Float32) -> None:
    bent = exact * SCALES[:, None, None]
    bent[4] *= np.linspace(0.5, 2, bent.shape[2])
    merged = merge_depths(maps(bent), CAMERAS)
    errors = np.abs(log_errors(merged))
    assert np.delete(errors, 4).max() < 1e-2
    worst = max(merged.pairs, key=lambda pair: abs(pair.offset))
    assert 4 in (worst.first, worst.second)
    assert abs(worst.offset) > 0.1
    assert worst.spread > 0.1


def test_what_is_invalid_is_left_out(exact: Float32) -> None:
    holed = exact * SCALES[:, None, None]
    holed[3] = 0
    holed[:, :20] = np.nan
    merged = merge_depths(maps(holed, metric=False), CAMERAS)
    assert merged.scales[3] == 1
    assert np.abs(np.delete(log_errors(merged), 3)).max() < 2e-3
    assert not merged.metric
    assert not any(3 in (pair.first, pair.second) for pair in merged.pairs)
    only = merge_depths(
        maps(np.where(np.arange(len(CAMERAS))[:, None, None] == 0, exact, 0)), CAMERAS
    )
    front, back = directions(np.zeros(2), np.array([0.0, np.pi]))
    assert only.distances(front) == pytest.approx(4, rel=1e-3)
    assert only.distances(back) == 0
    assert only.pairs == ()


def test_nothing_is_averaged_across_an_edge() -> None:
    """Two views that see different surfaces: one of them is taken, not something between."""
    two = Cameras(
        np.repeat(CAMERAS.camera_from_world[:1], 3, axis=0), CAMERAS.intrinsics[:3], 180, 312
    )
    shape = (180, 312)
    merged = MergedDepth(
        two,
        np.stack([np.full(shape, depth, dtype=np.float32) for depth in (2.0, 2.1, 6.0)]),
        np.ones(3),
        (),
        True,
    )
    found = float(merged.distances(directions(0.0, 0.0)))
    assert found == pytest.approx(np.sqrt(2 * 2.1), rel=1e-5)


def test_the_same_depths_give_the_same_bytes(exact: Float32) -> None:
    first, second = (merge_depths(maps(exact), CAMERAS) for _ in range(2))
    assert (first.depths == second.depths).all()
    assert first.pairs == second.pairs


def test_no_depth_at_all_is_refused(exact: Float32) -> None:
    with pytest.raises(MediaError, match="no view"):
        merge_depths(maps(0 * exact), CAMERAS)
    with pytest.raises(MediaError, match=r"view 1.*size"):
        merge_depths([*maps(exact[:1]), *maps(exact[1:, :-1])], CAMERAS)
