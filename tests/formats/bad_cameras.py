"""Bad scenes: camera files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.formats.bad_scene_table import (
    CAMERA,
    case,
    cut,
    edit,
    reconstruction,
)
from tests.scenes import path, write_json
from worldstereo.errors import CameraError, LayoutError


@case(reconstruction, LayoutError, CAMERA, "missing")
def cameras_missing(folder: Path) -> None:
    (folder / CAMERA).unlink()


@case(reconstruction, CameraError, CAMERA, "JSONDecodeError")
def cameras_are_no_json(folder: Path) -> None:
    cut(folder / CAMERA)


@case(reconstruction, CameraError, CAMERA, "RecursionError")
def cameras_nested_without_end(folder: Path) -> None:
    (folder / CAMERA).write_text("[" * 100_000)


@case(reconstruction, CameraError, CAMERA, "a list of 21")
def cameras_are_a_list(folder: Path) -> None:
    write_json(folder / CAMERA, path(21).tolist())


@case(reconstruction, CameraError, CAMERA, "extrinsic is missing", "intrinsic")
def extrinsic_missing(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: content.pop("extrinsic"))


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic", "the text 'all of them'")
def extrinsic_is_text(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: content.update(extrinsic="all of them"))


@case(reconstruction, CameraError, CAMERA, "20 cameras", "21")
def too_few_cameras(folder: Path) -> None:
    def drop(content: Any) -> None:
        content["extrinsic"].pop()
        content["intrinsic"].pop()

    edit(folder / CAMERA, drop)


@case(reconstruction, CameraError, CAMERA, "22 cameras", "21 frames")
def one_camera_too_many(folder: Path) -> None:
    def repeat(content: Any) -> None:
        content["extrinsic"].append(content["extrinsic"][-1])
        content["intrinsic"].append(content["intrinsic"][-1])

    edit(folder / CAMERA, repeat)


@case(reconstruction, CameraError, CAMERA, "21 extrinsic and 20 intrinsic")
def fewer_intrinsics(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: content["intrinsic"].pop())


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[0]", "3 rows of 4")
def extrinsic_is_3x4(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: [matrix.pop() for matrix in content["extrinsic"]])


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[3]", "the text '0.5'")
def number_as_text(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][3][0][0] = "0.5"

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[20]", "null")
def camera_is_null(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][20] = None

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[7]", "not finite", "nan")
def camera_not_a_number(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][7][0][3] = float("nan")

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[2]", "not finite", "1e+39")
def camera_beyond_float32(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][2][1][3] = 1e39

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic", "too large")
def camera_beyond_float64(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][2][1][3] = 10**400

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[5]", "translation", "1e+07")
def camera_far_away(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][5][2][3] = 1e7

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[4]", "orthonormal", "0.0201")
def rotation_with_scale(folder: Path) -> None:
    def spoil(content: Any) -> None:
        matrix = np.array(content["extrinsic"][4])
        matrix[:3, :3] *= 1.01
        content["extrinsic"][4] = matrix.tolist()

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[0]", "reflection", "determinant -1")
def rotation_mirrors(folder: Path) -> None:
    def spoil(content: Any) -> None:
        mirror = np.diag([1.0, -1.0, 1.0, 1.0])
        content["extrinsic"] = [(mirror @ np.array(m)).tolist() for m in content["extrinsic"]]

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: extrinsic[9]", "last row", "[0.0, 0.0, 1.0, 1.0]")
def last_row_of_another_kind(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["extrinsic"][9][3][2] = 1.0

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: intrinsic[1]", "not positive", "fx -38.4")
def focal_length_negative(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["intrinsic"][1][0][0] *= -1

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: intrinsic[0]", "fx 0.8", "not normalised")
def intrinsics_normalised(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["intrinsic"] = [[[0.8, 0, 0.5], [0, 1.2, 0.5], [0, 0, 1]]] * 21

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: intrinsic[0]", "principal point", "(416, 240)")
def intrinsics_of_another_size(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["intrinsic"] = [[[240, 0, 416], [0, 240, 240], [0, 0, 1]]] * 21

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: intrinsic[0]", "no pinhole")
def intrinsics_transposed(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["intrinsic"] = [np.array(m).T.tolist() for m in content["intrinsic"]]

    edit(folder / CAMERA, spoil)


@case(reconstruction, CameraError, f"{CAMERA}: height", "no such field")
def width_without_height(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: content.pop("height"))


@case(reconstruction, CameraError, f"{CAMERA}: width", "the text '48'")
def width_is_text(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: content.update(width="48"))


@case(reconstruction, CameraError, CAMERA, "48x48", "48x32")
def cameras_of_another_shape(folder: Path) -> None:
    edit(folder / CAMERA, lambda content: content.update(height=48))
