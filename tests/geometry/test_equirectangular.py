"""Panoramas: the stated axes, views cut out of them, the seam and the poles."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builder.box_room import psnr_db
from worldstereo.errors import MediaError
from worldstereo.formats.images import read_image
from worldstereo.geometry.equirectangular import (
    check_panorama_image,
    cut_views,
    directions,
    panorama_pixels,
    pixel_directions,
    sample_nearest,
    view_directions,
    view_pixels,
)
from worldstereo.types import Cameras

angles = st.floats(-1.5, 1.5), st.floats(-3.1, 3.1)


def camera(
    longitude: float = 0.0,
    latitude: float = 0.0,
    size: tuple[int, int] = (48, 80),
    focal: float = 40,
) -> Cameras:
    forward = directions(latitude, longitude)
    right = directions(0.0, longitude + np.pi / 2)
    matrix = np.eye(4)
    matrix[:3, :3] = right, np.cross(forward, right), forward
    intrinsics = [[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1]]
    return Cameras(matrix[None].astype(np.float32), np.array([intrinsics], dtype=np.float32), *size)


def smooth(towards: np.ndarray) -> np.ndarray:
    """A picture that is smooth all over the sphere, [..., 3] uint8."""
    way = np.array([[3.0, 1, -2], [-1, 4, 2], [2, -3, 3]])
    return (127.5 + 110 * np.sin(towards @ way + 0.4)).round().astype(np.uint8)


def test_axes() -> None:
    for u, v, expected in [
        (0.5, 0.5, [-1, 0, 0]),
        (0.75, 0.5, [0, 1, 0]),
        (0.25, 0.5, [0, -1, 0]),
        (0.5, 0.0, [0, 0, 1]),
        (0.5, 1.0, [0, 0, -1]),
    ]:
        found = panorama_pixels(np.array(expected, dtype=np.float64), 100, 200)
        # At a pole every column is as good.
        assert np.allclose(found[1], v * 100)
        assert expected[2] != 0 or np.allclose(found[0], u * 200)
    grid = pixel_directions(4, 8)
    assert np.allclose(np.linalg.norm(grid, axis=-1), 1)
    assert grid[0, :, 2].min() > 0.9  # the first row surrounds the zenith
    assert grid[2, 4, 1] > 0  # right of the centre


@given(*angles)
@settings(max_examples=30)
def test_directions_and_pixels_are_inverse(latitude: float, longitude: float) -> None:
    towards = directions(latitude, longitude)
    u, v = panorama_pixels(3 * towards, 90, 180)
    again = directions(np.pi * (0.5 - v / 90), 2 * np.pi * (u / 180 - 0.5))
    assert np.allclose(again, towards, atol=1e-12)


@given(*angles)
@settings(max_examples=20)
def test_each_pixel_of_a_view_sees_its_own_ray(latitude: float, longitude: float) -> None:
    view = camera(longitude, latitude)
    towards, cosine = view_directions(view)
    index, along, seen = view_pixels(towards.reshape(-1, 3), view)
    assert seen.all()
    assert (index == np.arange(48 * 80)).all()
    assert np.allclose(along, cosine.ravel(), atol=1e-6)
    forward = directions(latitude, longitude)
    assert np.allclose(towards @ forward, cosine, atol=1e-6)
    assert not view_pixels(-towards.reshape(-1, 3), view)[2].any()


@pytest.mark.parametrize(
    ("longitude", "latitude"), [(0.0, 0.0), (np.pi, 0.2), (1.0, np.pi / 2), (-2.0, -np.pi / 2)]
)
def test_views_show_what_lies_there(longitude: float, latitude: float) -> None:
    """Across the seam and over both poles too."""
    view = camera(longitude, latitude)
    found = cut_views(smooth(pixel_directions(96, 192)), view)[0]
    expected = smooth(view_directions(view)[0])
    assert psnr_db(found, expected) > 45
    assert np.abs(found.astype(int) - expected).max() <= 6


def test_turning_the_panorama_turns_the_views() -> None:
    random = np.random.default_rng(0)
    panorama = random.integers(0, 256, (64, 128, 3), dtype=np.uint8)
    turned = cut_views(np.roll(panorama, -37, axis=1), camera())
    assert psnr_db(turned, cut_views(panorama, camera(2 * np.pi * 37 / 128))) > 50


def test_fine_panoramas_are_averaged() -> None:
    panorama = np.zeros((512, 1024, 3), dtype=np.uint8)
    panorama[:, ::2] = 255
    view = cut_views(panorama, camera(size=(24, 32), focal=16))[0].astype(int)
    assert np.abs(view - 127.5).max() < 20


def test_nearest_samples_are_values_of_the_map() -> None:
    values = np.random.default_rng(0).uniform(1, 9, (16, 32)).astype(np.float32)
    assert (sample_nearest(values, pixel_directions(16, 32)) == values).all()
    around = np.random.default_rng(1).normal(size=(500, 3))
    assert np.isin(sample_nearest(values, around), values).all()
    back = np.array([[1.0, 1e-9, 0], [1.0, -1e-9, 0]])  # on either side of the seam
    assert sample_nearest(values, back).tolist() == [values[8, -1], values[8, 0]]


@pytest.mark.parametrize("shape", [(64, 120, 3), (64, 128), (32, 64, 3), (6000, 12000, 3)])
def test_what_is_no_panorama_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(MediaError, match="allowed"):
        check_panorama_image(np.broadcast_to(np.uint8(0), shape))


def test_published_views_show_each_other_in_their_overlaps(examples_folder) -> None:
    """What turns right by the published cameras turns right in the published images."""
    scene = next(folder for folder in sorted((examples_folder / "panorama").iterdir()))
    table = json.loads((scene / "pano_bank" / "cameras.json").read_text())
    images, cameras = {}, {}
    for name in ("0000", "0003"):
        images[name] = read_image(scene / "pano_bank" / "images" / f"{name}.png")
        cameras[name] = Cameras(
            np.array([table[name]["extrinsic"]], dtype=np.float32),
            np.array([table[name]["intrinsic"]], dtype=np.float32),
            *images[name].shape[:2],
        )
    towards = view_directions(cameras["0003"])[0].reshape(-1, 3)
    index, _, seen = view_pixels(towards, cameras["0000"])
    assert 0.4 < seen.mean() < 0.9
    shown = images["0000"].reshape(-1, 3)[index[seen]]
    assert psnr_db(shown, images["0003"].reshape(-1, 3)[seen]) > 24
