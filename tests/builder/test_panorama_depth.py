"""Where a panorama's distances come from: maps that are given, and estimators' views."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from worldstereo.builder.panorama_cameras import bank_cameras, polar_cameras
from worldstereo.builder.panorama_depth import (
    ProvidedPanoramaDepth,
    estimate_distances,
    merge_report,
    merge_statements,
    read_panorama_depth,
)
from worldstereo.depth.protocol import DepthMap
from worldstereo.errors import MediaError
from worldstereo.geometry.equirectangular import pixel_directions
from worldstereo.types import UInt8, concatenate_cameras

CAMERAS = concatenate_cameras([bank_cameras(), polar_cameras()]).resized(48, 84)


class Sphere:
    """An estimator: every view is as deep as a sphere of radius 3, but black ones are sky."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        self.asked.append(len(images))
        if any(not image.any() for image in images):
            raise MediaError("no depth is found in the image")
        # A pixel's depth over its distance, of the views' common intrinsics.
        fx, fy = CAMERAS.intrinsics[0, 0, 0], CAMERAS.intrinsics[0, 1, 1]
        x = (np.arange(84) + 0.5 - 42) / fx
        y = (np.arange(48) + 0.5 - 24)[:, None] / fy
        depth = 3 / np.sqrt(1 + x * x + y * y)
        return [DepthMap((depth * image[0, 0, 0]).astype(np.float32), True) for image in images]


def views() -> UInt8:
    """Whose brightness is the factor that the estimator gets wrong."""
    factors = np.arange(1, 30, dtype=np.uint8)
    return np.broadcast_to(factors[:, None, None, None], (29, 48, 84, 3)).copy()


def test_views_are_estimated_and_merged() -> None:
    source = Sphere()
    merged = estimate_distances(views(), CAMERAS, source)
    assert source.asked == [8, 8, 8, 5]
    found = merged.distances(pixel_directions(24, 48))
    # The median view's factor is 15: its sphere has radius 45. Half a pixel is 2 % at the corners.
    assert np.abs(np.log(found / 45)).max() < 0.03
    (statement,) = merge_statements(merged)
    assert "29 views" in statement
    assert "0.517 to 15" in statement
    assert "not measured" in statement
    report = merge_report(merged)
    assert [view["name"] for view in report["views"]] == [
        *(f"{index:04d}" for index in range(27)),
        "zenith",
        "nadir",
    ]
    assert report["pairs"][0]["views"] == ["0000", "0001"]
    assert report["pairs"][0]["spread"] < 0.02


def test_a_view_without_depth_has_none() -> None:
    images = views()
    images[[1, 27]] = 0
    source = Sphere()
    merged = estimate_distances(images, CAMERAS, source)
    assert source.asked == [8, *[1] * 8, 8, 8, 5, *[1] * 5]
    assert (merged.depths > 0).any(axis=(1, 2)).sum() == 27
    found = merged.distances(pixel_directions(24, 48))
    assert found[0].max() == 0  # the zenith, which no other view shows
    assert found[4:].min() > 0
    assert "0001, zenith" in merge_statements(merged)[1]
    with pytest.raises(MediaError, match="no view"):
        estimate_distances(0 * images, CAMERAS, source)


def test_a_map_is_read_in_metres(tmp_path: Path) -> None:
    distance = np.random.default_rng(0).uniform(1, 5, (16, 32)).astype(np.float32)
    distance[0] = np.inf  # sky
    np.save(tmp_path / "depth.npy", distance)
    depth = read_panorama_depth(tmp_path / "depth.npy")
    assert depth.metric
    found = depth.distances(pixel_directions(16, 32))
    assert (found[1:] == distance[1:]).all()
    assert found[0].max() == 0


def test_what_is_no_distance_map_is_refused() -> None:
    good = np.ones((8, 16), dtype=np.float32)
    with pytest.raises(MediaError, match="2 H"):
        ProvidedPanoramaDepth(good[:, :15])
    for bad in (-good, good * np.float32(np.nan), 0 * good):
        with pytest.raises(MediaError, match="no distances"):
            ProvidedPanoramaDepth(bad)
