"""Bad scenes: images, prompts, videos."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.formats.bad_scene_table import (
    SIZE,
    UP,
    case,
    cut,
    edit,
    reconstruction,
    single_view,
)
from tests.scenes import make_trajectory, path, picture, write_json
from worldstereo.errors import LayoutError, MediaError, PromptError
from worldstereo.formats.video import write_video


def png_of_zeros(side: int) -> bytes:
    """A PNG whose header claims a square of ``side`` pixels, with hardly any data."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


@case(reconstruction, LayoutError, "image.png", "missing")
def image_missing(folder: Path) -> None:
    (folder / "image.png").unlink()


@case(reconstruction, MediaError, "image.png", "cut")
def image_cut(folder: Path) -> None:
    cut(folder / "image.png")


@case(reconstruction, MediaError, "image.png", "another kind")
def image_is_text(folder: Path) -> None:
    (folder / "image.png").write_text("this is no picture")


@case(reconstruction, MediaError, "image.png", "an empty file")
def image_is_empty(folder: Path) -> None:
    (folder / "image.png").write_bytes(b"")


@case(reconstruction, MediaError, "image.png", "12x8 pixels")
def image_too_small(folder: Path) -> None:
    Image.fromarray(picture(0, (8, 12))).save(folder / "image.png")


@case(reconstruction, MediaError, "image.png", "9000x9000")
def image_too_large(folder: Path) -> None:
    (folder / "image.png").write_bytes(png_of_zeros(9000))


@case(reconstruction, MediaError, "image.png", "400000000 pixels")
def image_is_a_bomb(folder: Path) -> None:
    (folder / "image.png").write_bytes(png_of_zeros(20000))


@case(reconstruction, MediaError, "image.png", "mode I;16")
def image_is_16_bit(folder: Path) -> None:
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(folder / "image.png")


@case(reconstruction, PromptError, "traj_caption.json or prompt.json", "no such file")
def prompt_missing(folder: Path) -> None:
    (folder / "prompt.json").unlink()


@case(reconstruction, PromptError, "prompt.json: prompt", "empty", "'  '")
def prompt_empty(folder: Path) -> None:
    write_json(folder / "prompt.json", {"prompt": "  "})


@case(reconstruction, PromptError, "prompt.json: prompt", "the number 7")
def prompt_is_a_number(folder: Path) -> None:
    write_json(folder / "prompt.json", {"prompt": 7})


@case(reconstruction, PromptError, "prompt.json: prompt", "half a character", r"'\ud83d'")
def prompt_is_half_a_character(folder: Path) -> None:
    (folder / "prompt.json").write_text(r'{"prompt": "\ud83d"}')


@case(reconstruction, PromptError, "prompt.json", "a list of 1")
def prompt_is_a_list(folder: Path) -> None:
    write_json(folder / "prompt.json", ["a room"])


@case(reconstruction, PromptError, "prompt.json", "JSONDecodeError")
def prompt_is_no_json(folder: Path) -> None:
    (folder / "prompt.json").write_text("{'prompt': a room}")


@case(reconstruction, PromptError, "prompt.json", "UnicodeDecodeError")
def prompt_is_no_utf8(folder: Path) -> None:
    (folder / "prompt.json").write_bytes(b'{"prompt": "caf\xe9"}')


@case(reconstruction, PromptError, "prompt.json", "20001 characters")
def prompt_too_long(folder: Path) -> None:
    write_json(folder / "prompt.json", {"prompt": "x" * 20_001})


@case(single_view, PromptError, "prompt.json", "short caption")
def no_long_caption(folder: Path) -> None:
    edit(folder / "prompt.json", lambda content: content.pop("long caption"))


@case(reconstruction, LayoutError, f"{UP}/render.mp4", "missing")
def render_missing(folder: Path) -> None:
    (folder / UP / "render.mp4").unlink()


@case(reconstruction, LayoutError, f"{UP}/render_mask.mp4", "missing")
def mask_missing(folder: Path) -> None:
    (folder / UP / "render_mask.mp4").unlink()


@case(reconstruction, MediaError, f"{UP}/render.mp4", "5 frames", "21")
def render_of_5_frames(folder: Path) -> None:
    make_trajectory(folder / UP, path(21), nframe=5, size=SIZE)


@case(reconstruction, MediaError, f"{UP}/render_mask.mp4", "22 frames", "21 frames")
def mask_of_22_frames(folder: Path) -> None:
    write_video(folder / UP / "render_mask.mp4", np.zeros((22, *SIZE, 3), np.uint8))


@case(reconstruction, MediaError, f"{UP}/render_mask.mp4", "64x32", "48x32")
def mask_of_another_size(folder: Path) -> None:
    write_video(folder / UP / "render_mask.mp4", np.zeros((21, 32, 64, 3), np.uint8))


@case(reconstruction, MediaError, f"{UP}/render.mp4", "cannot be decoded to its end")
def render_cut(folder: Path) -> None:
    cut(folder / UP / "render.mp4", 0.7)


@case(reconstruction, MediaError, f"{UP}/render_mask.mp4", "no video stream of a known codec")
def mask_cut_before_its_index(folder: Path) -> None:
    cut(folder / UP / "render_mask.mp4", 0.1)


@case(reconstruction, MediaError, f"{UP}/render.mp4", "no MP4 file")
def render_is_text(folder: Path) -> None:
    (folder / UP / "render.mp4").write_text("#EXTM3U\n/etc/hostname\n")


@case(reconstruction, MediaError, f"{UP}/render.mp4", "an empty file")
def render_is_empty(folder: Path) -> None:
    (folder / UP / "render.mp4").write_bytes(b"")


@case(reconstruction, MediaError, f"{UP}/render.mp4", "64x64", "image.png")
def render_of_another_shape(folder: Path) -> None:
    make_trajectory(folder / UP, path(21), size=(64, 64))


@case(reconstruction, MediaError, f"{UP}/render.mp4", "too long", "1025 frames")
def render_too_long(folder: Path) -> None:
    make_trajectory(folder / UP, path(21), nframe=1025, size=(16, 24))
