"""Bad camera files: no known format, our path, camera.json, transforms.json, RealEstate10K."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.bad_camera_table import (
    case,
    colmap_project,
    cut,
    edit,
    nothing,
    path,
    published,
    realestate,
    replace,
    transforms,
)


@case(nothing, "cameras", "missing", "no such file")
def missing(file: Path) -> None: ...


@case(nothing, "cameras", "no cameras in a known format", "no bytes", "COLMAP")
def empty(file: Path) -> None:
    file.write_bytes(b"")


@case(nothing, "cameras", "no COLMAP model", "an empty folder")
def empty_folder(file: Path) -> None:
    file.mkdir()


@case(nothing, "cameras", "no COLMAP model", "points3D.bin")
def folder_of_other_things(file: Path) -> None:
    file.mkdir()
    (file / "points3D.bin").touch()


@case(nothing, "cameras", "no regular file")
def no_regular_file(file: Path) -> None:
    os.mkfifo(file)


@case(nothing, "cameras", "no cameras in a known format", "\\x80")
def pickled(file: Path) -> None:
    file.write_bytes(pickle.dumps({"w2c": [1.0]}))


@case(nothing, "cameras", "no cameras in a known format", "NUMPY")
def one_array(file: Path) -> None:
    with file.open("wb") as stream:
        np.save(stream, np.eye(4))


@case(nothing, "cameras", "no cameras in a known format", "PNG")
def an_image(file: Path) -> None:
    file.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")


@case(nothing, "line 1", "no RealEstate10K", "to whom")
def a_letter(file: Path) -> None:
    file.write_text("to whom it may concern\n")


@case(nothing, "no UTF-8")
def latin_text(file: Path) -> None:
    file.write_bytes("https://é\n".encode("latin-1"))


@case(colmap_project, "project", "two formats", "sparse/0", "transforms.json")
def two_formats(folder: Path) -> None:
    (folder / "transforms.json").write_text("{}")


@case(path, "path.json", "too large", "bytes")
def too_large(file: Path) -> None:
    file.write_text("{" + " " * (1 << 24) + "}")


@case(path, "path.json", "no JSON", "JSONDecodeError")
def broken_json(file: Path) -> None:
    cut(file, 300)


@case(path, "path.json", "no JSON", "RecursionError")
def nested_without_end(file: Path) -> None:
    file.write_text("[" * 100_000)


@case(path, "path.json", "JSON object", "a list of 1")
def a_list(file: Path) -> None:
    file.write_text("[{}]")


@case(path, "path.json", "known format", "fields poses, unit", "camera_from_world_opencv")
def unknown_json(file: Path) -> None:
    file.write_text('{"unit": "metric", "poses": []}')


@case(path, "path.json: unit", "'feet'", "metric")
def unknown_unit(file: Path) -> None:
    edit(file, lambda content: content.update(unit="feet"))


@case(path, "path.json: fov", "Extra inputs", "intrinsics")
def unknown_field(file: Path) -> None:
    edit(file, lambda content: content.update(fov=60))


@case(path, "path.json: axes", "OpenGL", "OpenCV")
def other_axes(file: Path) -> None:
    edit(file, lambda content: content.update(axes="OpenGL: x right, y up, z backward"))


@case(path, "path.json: schema_version", "2", "1")
def newer_version(file: Path) -> None:
    edit(file, lambda content: content.update(schema_version=2))


@case(path, "path.json: width", "'160'")
def size_as_text(file: Path) -> None:
    edit(file, lambda content: content.update(width="160"))


@case(path, "path.json: camera_from_world_opencv", "0 cameras", "1 to")
def no_cameras(file: Path) -> None:
    edit(
        file,
        lambda content: content.update(camera_from_world_opencv=[], intrinsics=[], names=[]),
    )


@case(path, "path.json: intrinsics", "5 matrices and 4 intrinsics")
def one_lens_less(file: Path) -> None:
    edit(file, lambda content: content["intrinsics"].pop())


@case(path, "path.json: camera_from_world_opencv[2]", "'0.png'", "different")
def a_name_twice(file: Path) -> None:
    edit(file, lambda content: content["names"].__setitem__(2, "0.png"))


@case(path, "path.json: camera_from_world_opencv[1]", "not 4x4", "3 rows of 4")
def three_rows(file: Path) -> None:
    edit(file, lambda content: content["camera_from_world_opencv"][1].pop())


@case(path, "path.json: camera_from_world_opencv[1]", "not finite", "nan")
def not_a_number(file: Path) -> None:
    edit(
        file,
        lambda content: content["camera_from_world_opencv"][1][0].__setitem__(3, float("nan")),
    )


@case(path, "path.json: camera_from_world_opencv[4]", "orthonormal", "0.001")
def a_scaled_rotation(file: Path) -> None:
    def scale(content: Any) -> None:
        matrix = np.array(content["camera_from_world_opencv"][4])
        matrix[:3, :3] *= 1.01
        content["camera_from_world_opencv"][4] = matrix.tolist()

    edit(file, scale)


@case(path, "path.json: camera_from_world_opencv[0]", "reflection")
def a_mirror(file: Path) -> None:
    def mirror(content: Any) -> None:
        matrix = np.array(content["camera_from_world_opencv"][0])
        content["camera_from_world_opencv"][0] = (np.diag([1, -1, 1, 1]) @ matrix).tolist()

    edit(file, mirror)


@case(path, "path.json: intrinsics[3]", "no pinhole")
def a_skewed_lens(file: Path) -> None:
    edit(file, lambda content: content["intrinsics"][3][0].__setitem__(1, 20.0))


@case(path, "path.json: intrinsics[0]", "focal lengths do not fit", "not normalised")
def normalised_lens(file: Path) -> None:
    lens = [[0.6, 0, 0.5], [0, 0.9, 0.5], [0, 0, 1]]
    edit(file, lambda content: content["intrinsics"].__setitem__(0, lens))


@case(published, "camera.json", "intrinsic is missing")
def half_a_camera_file(file: Path) -> None:
    edit(file, lambda content: content.pop("intrinsic"))


@case(transforms, "cameras.dat: frames", "no list", "an object")
def frames_are_an_object(file: Path) -> None:
    edit(file, lambda content: content.update(frames={}))


@case(transforms, "cameras.dat: frames[1]: file_path", "null")
def a_frame_without_an_image(file: Path) -> None:
    edit(file, lambda content: content["frames"][1].pop("file_path"))


@case(transforms, "cameras.dat: 1.png: transform_matrix", "no such field", "4 numbers")
def a_frame_without_a_matrix(file: Path) -> None:
    edit(file, lambda content: content["frames"][1].pop("transform_matrix"))


@case(transforms, "cameras.dat: transform_matrix", "[1]", "cannot be inverted")
def a_singular_matrix(file: Path) -> None:
    edit(file, lambda content: content["frames"][1].update(transform_matrix=[[0] * 4] * 4))


@case(transforms, "cameras.dat: 0.png: transform_matrix", "not finite")
def a_number_beyond_floats(file: Path) -> None:
    edit(file, lambda content: content["frames"][0]["transform_matrix"][0].__setitem__(3, 10**400))


@case(transforms, "cameras.dat: 0.png: camera_model", "OPENCV_FISHEYE", "undistort")
def a_fisheye(file: Path) -> None:
    edit(file, lambda content: content.update(camera_model="OPENCV_FISHEYE"))


@case(transforms, "cameras.dat: 0.png: k1", "distortion", "-0.02", "undistort")
def a_distorted_lens(file: Path) -> None:
    edit(file, lambda content: content.update(k1=-0.02))


@case(transforms, "cameras.dat: 0.png: fl_x", "no focal length", "camera_angle_x")
def no_focal_length(file: Path) -> None:
    edit(file, lambda content: content["frames"][0].pop("fl_x"))


@case(transforms, "cameras.dat: 0.png: h", "no image side", "96.5")
def half_a_pixel(file: Path) -> None:
    edit(file, lambda content: content.update(h=96.5))


@case(transforms, "cameras.dat: h and w", "several image sizes", "160x96, 161x96")
def two_sizes(file: Path) -> None:
    edit(file, lambda content: content["frames"][2].update(w=161))


@case(transforms, "cameras.dat: applied_transform", "orthonormal")
def a_transform_that_scales(file: Path) -> None:
    rows = [[2, 0, 0, 0], [0, 2, 0, 0], [0, 0, 2, 0]]
    edit(file, lambda content: content.update(applied_transform=rows))


@case(transforms, "cameras.dat: applied_scale", "out of range")
def a_scale_of_nothing(file: Path) -> None:
    edit(file, lambda content: content.update(applied_scale=0))


@case(realestate, "clip.json: line 3", "18 numbers", "19 numbers")
def a_short_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    lines[2] = lines[2].rsplit(" ", 1)[0]
    file.write_text("\n".join(lines))


@case(realestate, "clip.json: line 2", "'zero' among the numbers")
def a_word_among_numbers(file: Path) -> None:
    replace(file, "0 ", "zero ")


@case(realestate, "clip.json: line 2", "not finite", "inf")
def an_infinite_number(file: Path) -> None:
    lines = file.read_text().splitlines()
    lines[1] = lines[1].rsplit(" ", 1)[0] + " inf"
    file.write_text("\n".join(lines))


@case(realestate, "clip.json: line 2: fields 6 and 7", "distortion", "undistort")
def a_distorted_line(file: Path) -> None:
    replace(file, " 0 0 ", " 0.1 0 ")


@case(realestate, "clip.json", "0 cameras")
def only_a_url(file: Path) -> None:
    file.write_text("https://example.org\n")


@case(realestate, "clip.json: fx fy cx cy[0]", "focal lengths do not fit")
def pixels_instead_of_fractions(file: Path) -> None:
    words = file.read_text().splitlines()[1].split()
    file.write_text(" ".join([words[0], "120", "120", "80", "48", *words[5:]]))
