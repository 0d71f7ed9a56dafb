"""Images in and out: PNG, JPEG and WebP by content, whatever the suffix says; PNG out.

Owns decoding, its limits and resizing. RGB uint8 ``[height, width, 3]`` throughout; stored
orientation tags are applied only when that is asked for, since the cameras of a scene are stated
for the stored pixels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from worldstereo.errors import MediaError
from worldstereo.formats.limits import DEFAULT_LIMITS, Limits
from worldstereo.types import UInt8

IMAGE_FORMATS = ("PNG", "JPEG", "WEBP")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
# What makes a photo upright, by its orientation tag (Exif 2.3, 0x0112).
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)
_EIGHT_BIT_MODES = ("RGB", "RGBA", "RGBX", "L", "LA", "P", "PA", "1", "CMYK", "YCbCr")


def _open(path: Path, name: str, limits: Limits) -> Image.Image:
    allowed = "a PNG, JPEG or WebP image"
    try:
        image = Image.open(path, formats=IMAGE_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as problem:
        raise MediaError(
            "the image is too large",
            where=name,
            got=str(problem),
            allowed=f"up to {limits.max_image_pixels} pixels",
        ) from problem
    except (OSError, ValueError, SyntaxError) as problem:
        got = "an empty file" if path.stat().st_size == 0 else "a file of another kind"
        if not isinstance(problem, UnidentifiedImageError):
            got = str(problem)[:120]
        raise MediaError("no readable image", where=name, got=got, allowed=allowed) from problem
    width, height = image.size
    if width * height > limits.max_image_pixels or min(width, height) < limits.min_side:
        image.close()
        raise MediaError(
            "the image's size is out of range",
            where=name,
            got=f"{width}x{height} pixels",
            allowed=f"sides of at least {limits.min_side}, "
            f"up to {limits.max_image_pixels} pixels in all",
        )
    if image.mode not in _EIGHT_BIT_MODES:
        image.close()
        raise MediaError(
            "the image has no 8-bit colours",
            where=name,
            got=f"mode {image.mode}",
            allowed="8-bit grey, palette or RGB",
        )
    return image


def read_image(
    path: Path,
    name: str | None = None,
    limits: Limits = DEFAULT_LIMITS,
    *,
    upright: bool = False,
) -> UInt8:
    """Decode an image.

    Args:
        path: the file; its content decides what it is, not its suffix.
        name: how errors call the file; default: its path.
        limits: bounds that are checked before decoding.
        upright: turn a photo as its orientation tag says.

    Returns:
        [height, width, 3] uint8 RGB; an alpha channel is dropped.

    Raises:
        MediaError: no image, cut short, too large or too small, not 8-bit.
    """
    name = str(path) if name is None else name
    with _open(path, name, limits) as image:
        try:
            turned = _upright(image) if upright else image
            return np.asarray(turned.convert("RGB"), dtype=np.uint8)
        except (OSError, ValueError, SyntaxError) as problem:
            raise MediaError(
                "the image cannot be decoded",
                where=name,
                got=f"a broken or cut {image.format} file: {str(problem)[:120]}",
                allowed="a complete image",
            ) from problem


def image_size(
    path: Path, name: str | None = None, limits: Limits = DEFAULT_LIMITS
) -> tuple[int, int]:
    """(height, width) of an image when it is upright, from its header alone.

    Args:
        path: the file.
        name: how errors call the file; default: its path.
        limits: bounds on it.

    Raises:
        MediaError: no image, too large or too small, not 8-bit.
    """
    with _open(path, str(path) if name is None else name, limits) as image:
        width, height = image.size
        on_its_side = image.getexif().get(_ORIENTATION) in _ON_THEIR_SIDE
    return (width, height) if on_its_side else (height, width)


def _upright(image: Image.Image) -> Image.Image:
    # Not ImageOps.exif_transpose: it writes the other tags anew, and cameras leave broken ones.
    turn = image.getexif().get(_ORIENTATION)
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image


def write_png(path: Path, frame: UInt8) -> None:
    """Write [height, width, 3] uint8 RGB losslessly; the same frame gives the same bytes."""
    assert frame.ndim == 3, frame.shape
    assert frame.shape[2] == 3, frame.shape
    assert frame.dtype == np.uint8, frame.dtype
    Image.fromarray(frame).save(path, format="PNG", compress_level=4)


def resize_bicubic(frame: UInt8, size: tuple[int, int]) -> UInt8:
    """Resize an RGB frame with PIL's bicubic filter.

    Args:
        frame: [H, W, 3] uint8.
        size: (height, width) to come out.

    Returns:
        [height, width, 3] uint8; the frame itself when it has that size.
    """
    height, width = size
    if frame.shape[:2] == (height, width):
        return frame
    resized = Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)
