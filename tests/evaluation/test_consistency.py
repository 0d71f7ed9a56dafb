"""Visibility by exact depth, and the consistency of clips that share a scene."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation import box_room
from worldstereo.evaluation.consistency import ClipDepths, consistency
from worldstereo.evaluation.visibility import bilinear, seen_by, seen_by_any, views_of

UP = box_room.cameras(box_room.path(5, yaw=22))
RIGHT = box_room.cameras(box_room.path(5, yaw=28, move=0.7))


def clip(
    name: str, cameras: object, holes: np.ndarray | None = None
) -> tuple[ClipDepths, np.ndarray]:
    images, depths = box_room.render(cameras)  # type: ignore[arg-type]
    return ClipDepths(name, cameras, depths, holes), images  # type: ignore[arg-type]


def test_a_camera_sees_all_of_its_own_picture() -> None:
    _, depths = box_room.render(UP, samples=1)
    for view in views_of(UP, depths):
        rows, columns = np.nonzero(view.depth > 0)
        seen = seen_by(view, view.points(rows, columns))
        assert seen.visible.all()
        np.testing.assert_allclose(seen.u, columns + 0.5, atol=1e-4)
        np.testing.assert_allclose(seen.v, rows + 0.5, atol=1e-4)


def test_what_lies_behind_a_surface_is_not_seen() -> None:
    _, depths = box_room.render(UP[:1], samples=1)
    view = views_of(UP[:1], depths)[0]
    points = np.array([[0, 0, 4.0], [0, 0, 5.0], [0, 0, 3.0], [0, 0, -1.0], [50, 0, 4]])
    assert seen_by(view, points).visible.tolist() == [True, False, False, False, False]


def test_a_slanted_surface_is_seen_though_pixels_differ() -> None:
    """On the floor far away neighbouring depths differ by more than the tolerance."""
    cameras = box_room.cameras(np.stack([box_room.pose(), box_room.pose(3, 1, (0.05, 0, 0.1))]))
    _, depths = box_room.render(cameras, samples=1)
    one, other = views_of(cameras, depths)
    rows, columns = np.nonzero(one.depth > 0)
    points = one.points(rows, columns)
    floor = np.abs(points[:, 1] - box_room.HIGH[1]) < 1e-6
    u, v, z = other.project(points)
    # Between the outermost pixel centres: beyond them nothing is interpolated.
    inside = other.in_picture(u, v, z) & floor & (v < box_room.SIZE[0] - 0.5) & (u > 0.5)
    assert inside.sum() > 500
    steps = np.abs(np.diff(one.depth, axis=0) / one.depth[1:])
    assert np.median(steps[88:]) > 0.01
    assert seen_by(other, points, tolerance=0.005).visible[inside].mean() > 0.98


def test_holes_that_a_reference_sees() -> None:
    cameras = box_room.cameras(
        np.stack([box_room.pose(0), box_room.pose(35), box_room.pose(60), box_room.pose(-90)])
    )
    _, depths = box_room.render(cameras, samples=1)
    start, target, ahead, away = views_of(cameras, depths)
    holes = np.zeros((1, *box_room.SIZE), dtype=bool)
    holes[0, :, 72:] = True  # the right half: beyond what the start camera sees
    assert not seen_by_any([target], holes, []).any()
    assert seen_by_any([target], holes, [start]).mean() < 0.1
    assert not seen_by_any([target], holes, [away]).any()
    seen = seen_by_any([target], holes, [start, ahead])
    assert seen.sum() > 0.95 * holes.sum()
    assert not (seen & ~holes).any()
    no_depth = views_of(cameras, np.zeros_like(depths))
    assert not seen_by_any([no_depth[1]], holes, [ahead]).any()


def test_bilinear_places_are_pixel_centres_at_half() -> None:
    values = np.arange(12.0).reshape(3, 4, 1)
    u, v = np.array([0.5, 2.0, 3.5, 4.0, 0.0]), np.array([0.5, 0.5, 2.5, 3.0, 0.0])
    np.testing.assert_allclose(bilinear(values, u, v)[:, 0], [0, 1.5, 11, 11, 0])
    assert bilinear(np.array([[[7.0]]]), np.array([0.3]), np.array([0.9])).item() == 7


def test_exact_clips_agree_and_a_changed_one_does_not() -> None:
    (up, up_images), (right, right_images) = clip("v/up", UP), clip("v/right", RIGHT)
    brighter = np.minimum(right_images, 235) + np.uint8(20)
    found = consistency(
        [up, right],
        {
            "exact": {"v/up": up_images, "v/right": right_images},
            "brighter": {"v/up": up_images, "v/right": brighter},
            "half": {"v/up": up_images},
        },
        stride=2,
    )
    exact, changed = found["exact"], found["brighter"]
    assert [(pair.source, pair.target) for pair in exact.pairs] == [
        ("v/right", "v/up"),
        ("v/up", "v/right"),
    ]
    assert exact.psnr is not None
    assert exact.psnr > 35
    assert changed.psnr is not None
    assert changed.psnr == pytest.approx(20 * np.log10(255 / 20), abs=0.6)
    assert all(0.5 < pair.covered < 1 for pair in exact.pairs)
    assert exact.psnr_on_holes is None  # no holes are known
    assert found["half"].pairs == ()
    assert found["half"].psnr is None


def test_frame_0_does_not_count() -> None:
    (up, up_images), (right, right_images) = clip("v/up", UP), clip("v/right", RIGHT)
    broken = right_images.copy()
    broken[0] = 0
    frames = {
        "exact": {"v/up": up_images, "v/right": right_images},
        "broken start": {"v/up": up_images, "v/right": broken},
    }
    found = consistency([up, right], frames, stride=2)
    assert found["exact"] == found["broken start"]


def test_holes_are_counted_by_themselves() -> None:
    holes = np.zeros((5, *box_room.SIZE), dtype=bool)
    holes[:, :48] = True
    up, up_images = clip("v/up", UP)
    right, right_images = clip("v/right", RIGHT, holes)
    changed = right_images.copy()
    changed[:, 48:] = 0  # beside the holes
    frames = {"changed": {"v/up": up_images, "v/right": changed}}
    found = consistency([up, right], frames, stride=4)["changed"]
    of_right = next(pair for pair in found.pairs if pair.target == "v/right")
    assert of_right.psnr_on_holes is not None
    assert of_right.psnr_on_holes > 33
    assert of_right.psnr is not None
    assert of_right.psnr < 15
