"""Images: content decides, nothing is lost in PNG, resizing is PIL's bicubic."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageOps

from tests.scenes import picture
from worldstereo.errors import MediaError
from worldstereo.formats.images import image_size, read_image, resize_bicubic, write_png
from worldstereo.formats.limits import Limits

sizes = st.tuples(st.integers(16, 40), st.integers(16, 40))
frames = sizes.flatmap(lambda size: arrays(np.uint8, (*size, 3)))


@given(frame=frames)
def test_png_gives_back_every_value(tmp_path_factory: pytest.TempPathFactory, frame) -> None:
    file = tmp_path_factory.getbasetemp() / "frame.png"
    write_png(file, frame)
    assert np.array_equal(read_image(file), frame)
    first = file.read_bytes()
    write_png(file, frame)
    assert file.read_bytes() == first


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_content_decides_and_not_the_suffix(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "image.png"
    Image.fromarray(picture(3, (32, 48))).save(file, format=kind, quality=95)
    frame = read_image(file)
    assert frame.shape == (32, 48, 3)
    assert np.abs(frame.astype(int) - picture(3, (32, 48))).mean() < 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "LA"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(picture(1, (20, 30))).convert("L").convert("RGB").convert(mode)
    file = tmp_path / "image"
    image.save(file, format="JPEG" if mode == "CMYK" else "PNG")
    assert read_image(file).shape == (20, 30, 3)


def test_formats_with_surprises_are_not_opened(tmp_path: Path) -> None:
    Image.fromarray(picture(1, (20, 30))).save(tmp_path / "image.tif")
    with pytest.raises(MediaError, match="another kind"):
        read_image(tmp_path / "image.tif")


def test_limits_are_checked_before_decoding(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(0, (32, 48)))
    with pytest.raises(MediaError, match="48x32 pixels"):
        read_image(tmp_path / "a.png", limits=Limits(max_image_pixels=1000))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    image, exif = Image.fromarray(picture(4, (20, 30))), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored))
    assert np.array_equal(read_image(tmp_path / "a.png", upright=True), expected)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture(4, (20, 30)))
    assert image_size(tmp_path / "a.png") == expected.shape[:2]


def test_a_broken_tag_beside_the_orientation_is_no_matter(tmp_path: Path) -> None:
    # Tag 0x123 holds a text, which Pillow reads and cannot write again.
    exif = bytes.fromhex(
        "457869660000 4d4d002a00000008 0003"
        "012300020000 0003 6d650000 011200030000 0001 00060000 011a00050000 0001 00000032"
        "00000000 00000048 00000001"
    )
    image = Image.fromarray(picture(4, (20, 30)))
    image.save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg", upright=True).shape == (30, 20, 3)


def test_resizing_is_bicubic() -> None:
    frame = picture(5, (40, 60))
    expected = Image.fromarray(frame).resize((30, 20), Image.Resampling.BICUBIC)
    assert np.array_equal(resize_bicubic(frame, (20, 30)), np.asarray(expected))
    assert resize_bicubic(frame, (40, 60)) is frame


@given(sizes, st.integers(0, 255))
def test_resizing_keeps_a_plain_colour(size: tuple[int, int], value: int) -> None:
    frame = np.full((24, 24, 3), value, np.uint8)
    assert np.array_equal(resize_bicubic(frame, size), np.full((*size, 3), value, np.uint8))
