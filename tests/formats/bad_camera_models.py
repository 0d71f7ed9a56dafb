"""Bad camera files: .npz and COLMAP models."""

from __future__ import annotations

import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np

from tests.formats.bad_camera_table import (
    cameras,
    case,
    colmap,
    colmap_text,
    cut,
    npz,
    patch,
    replace,
)


@case(npz, "trajectory.npz", "no readable .npz", "BadZipFile")
def half_an_archive(file: Path) -> None:
    cut(file, file.stat().st_size // 2)


@case(npz, "trajectory.npz", "w2c is missing", "an empty archive")
def an_empty_archive(file: Path) -> None:
    zipfile.ZipFile(file, "w").close()


@case(npz, "trajectory.npz", "intrinsics is missing", "image_height")
def an_array_missing(file: Path) -> None:
    np.savez(file, w2c=cameras().camera_from_world, image_height=96, image_width=160)


@case(npz, "trajectory.npz: w2c", "pickled", "Object arrays")
def a_pickle_inside(file: Path) -> None:
    np.savez(file, w2c=np.array([{}], dtype=object), intrinsics=0, image_height=0, image_width=0)


@case(npz, "trajectory.npz: w2c", "numbers", "dtype <U1")
def an_array_of_text(file: Path) -> None:
    np.savez(file, w2c=np.array(["a"]), intrinsics=0, image_height=0, image_width=0)


@case(npz, "trajectory.npz: w2c", "[5, 3, 4]", "[N, 4, 4]")
def a_narrow_array(file: Path) -> None:
    np.savez(
        file,
        w2c=cameras().camera_from_world[:, :3],
        intrinsics=cameras().intrinsics,
        image_height=96,
        image_width=160,
    )


@case(npz, "trajectory.npz: image_height", "no number", "[2]")
def two_heights(file: Path) -> None:
    np.savez(
        file,
        w2c=cameras().camera_from_world,
        intrinsics=cameras().intrinsics,
        image_height=[96, 97],
        image_width=160,
    )


@case(npz, "trajectory.npz", "5 w2c and 4 intrinsics")
def one_lens_less_in_npz(file: Path) -> None:
    np.savez(
        file,
        w2c=cameras().camera_from_world,
        intrinsics=cameras().intrinsics[:4],
        image_height=96,
        image_width=160,
    )


@case(npz, "trajectory.npz: w2c", "no readable .npz")
def a_header_that_claims_terabytes(file: Path) -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000, 4, 4), }"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(64)
    with zipfile.ZipFile(file, "w") as archive:
        for field in ("w2c", "intrinsics", "image_height", "image_width"):
            archive.writestr(f"{field}.npy", array)


@case(colmap, "model/cameras.bin", "camera 4", "ends in the middle")
def cut_cameras(folder: Path) -> None:
    cut(folder / "cameras.bin", (folder / "cameras.bin").stat().st_size - 8)


@case(colmap, "model/cameras.bin: camera 0: model", "model 4", "PINHOLE", "undistort")
def a_distorted_model(folder: Path) -> None:
    patch(folder / "cameras.bin", 12, struct.pack("<i", 4))


@case(colmap, "model/cameras.bin", "1099511627776 cameras")
def a_trillion_cameras(folder: Path) -> None:
    patch(folder / "cameras.bin", 0, struct.pack("<Q", 1 << 40))


@case(colmap, "model/images.bin", "empty", "0 bytes")
def no_images(folder: Path) -> None:
    cut(folder / "images.bin", 0)


@case(colmap, "model/images.bin", "image 0", "ends in the middle")
def a_trillion_observations(folder: Path) -> None:
    content = (folder / "images.bin").read_bytes()
    at = content.index(b"0.png\0") + 6
    patch(folder / "images.bin", at, struct.pack("<Q", 1 << 40))


@case(colmap, "model/images.bin: image 0", "quaternion", "nan")
def a_quaternion_of_nothing(folder: Path) -> None:
    patch(folder / "images.bin", 12, struct.pack("<d", float("nan")))


@case(colmap, "model/images.bin: images sorted by name[0]", "not finite")
def an_infinite_place(folder: Path) -> None:
    patch(folder / "images.bin", 44, struct.pack("<d", float("inf")))


@case(colmap, "model", "pycolmap cannot read")
def an_image_of_no_camera(folder: Path) -> None:
    patch(folder / "images.bin", 68, struct.pack("<i", 99))


@case(colmap, "model/images.bin: image 0", "no text", "UTF-8")
def a_name_in_latin(folder: Path) -> None:
    content = (folder / "images.bin").read_bytes()
    patch(folder / "images.bin", content.index(b"0.png"), b"\xe9")


@case(colmap, "model/images.bin", "more than its counts say")
def more_than_it_says(folder: Path) -> None:
    with (folder / "images.bin").open("ab") as file:
        file.write(b"more")


@case(colmap, "model", "no COLMAP model", "cameras.bin")
def images_missing(folder: Path) -> None:
    (folder / "images.bin").unlink()


@case(colmap_text, "model/cameras.txt: line 4: model", "SIMPLE_RADIAL", "undistort")
def a_radial_lens(folder: Path) -> None:
    replace(folder / "cameras.txt", "1 PINHOLE", "1 SIMPLE_RADIAL")


@case(colmap_text, "model/cameras.txt: line 4", "no camera", "4 parameters")
def a_parameter_missing(folder: Path) -> None:
    lines = (folder / "cameras.txt").read_text().splitlines()
    lines[3] = lines[3].rsplit(" ", 1)[0]
    (folder / "cameras.txt").write_text("\n".join(lines))


@case(colmap_text, "model/images.txt: line 6", "observations is missing", "empty line")
def no_lines_of_observations(folder: Path) -> None:
    lines = (folder / "images.txt").read_text().splitlines()
    (folder / "images.txt").write_text("\n".join(line for line in lines if line.strip()))


@case(colmap_text, "model/images.txt", "observations is missing", "the end of the file")
def the_last_line_missing(folder: Path) -> None:
    (folder / "images.txt").write_text((folder / "images.txt").read_text().rstrip() + "\n")


@case(colmap_text, "model/images.txt: line 5", "no image", "my image", "blanks")
def a_name_with_a_blank(folder: Path) -> None:
    replace(folder / "images.txt", "0.png", "my image.png")


@case(colmap_text, "model/images.txt: line 5", "quaternion", "length 0")
def a_quaternion_of_zeros(folder: Path) -> None:
    lines = (folder / "images.txt").read_text().splitlines()
    words = lines[4].split()
    lines[4] = " ".join([words[0], "0", "0", "0", "0", *words[5:]])
    (folder / "images.txt").write_text("\n".join(lines) + "\n")


@case(colmap_text, "model/images.txt", "0 cameras")
def comments_alone(folder: Path) -> None:
    (folder / "images.txt").write_text("# nothing\n")


@case(colmap_text, "model", "give the folder", "# Image list")
def a_part_of_a_model(folder: Path) -> None:
    text = (folder / "images.txt").read_text()
    shutil.rmtree(folder)
    folder.write_text(text)
