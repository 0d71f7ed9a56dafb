"""Bad scenes: folders, panorama and single-view files, arguments."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.formats.bad_scene_table import (
    CAMERA,
    SIZE,
    UP,
    case,
    cut,
    edit,
    nothing,
    panorama,
    perspective,
    reconstruction,
    single_view,
)
from tests.scenes import make_pano_bank, picture, write_json
from worldstereo.errors import CameraError, LayoutError, MediaError, ParameterError, PromptError


@case(nothing, LayoutError, "scene", "does not exist", uploadable=False)
def folder_does_not_exist(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)


@case(nothing, LayoutError, "scene", "a file", uploadable=False)
def folder_is_a_file(folder: Path) -> None:
    folder.write_text("not a folder")


@case(nothing, LayoutError, "no published layout", "empty folder")
def folder_is_empty(folder: Path) -> None:
    folder.mkdir()


@case(nothing, LayoutError, "no published layout", "notes.txt")
def folder_holds_something_else(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("nothing to see")


@case(single_view, LayoutError, "no published layout", "image.png")
def image_and_prompt_alone(folder: Path) -> None:
    (folder / "camera.json").unlink()
    (folder / "depth.npy").unlink()


@case(reconstruction, LayoutError, "two layouts", "camera.json", "renders/")
def single_view_and_reconstruction(folder: Path) -> None:
    shutil.copy(folder / CAMERA, folder / "camera.json")


@case(reconstruction, LayoutError, "two layouts", "renders/", "view0/")
def reconstruction_and_panorama(folder: Path) -> None:
    shutil.copytree(folder / UP, folder / "view0" / "traj0")


@case(panorama, LayoutError, "two layouts", "view0/", "render_results/")
def views_in_two_places(folder: Path) -> None:
    shutil.copytree(folder / "view0", folder / "render_results" / "view0")


@case(reconstruction, LayoutError, "renders", "no trajectory")
def no_trajectory(folder: Path) -> None:
    shutil.rmtree(folder / UP)


@case(reconstruction, LayoutError, "renders", "traj-up", "traj_up")
def names_equal_but_for_hyphens(folder: Path) -> None:
    shutil.copytree(folder / UP, folder / "renders/traj-up")


@case(reconstruction, LayoutError, "a name cannot be used", "'up\\ndown'", uploadable=False)
def name_of_two_lines(folder: Path) -> None:
    (folder / UP).rename(folder / "renders/up\ndown")


@case(reconstruction, LayoutError, "renders", "'caf\\udce9'", uploadable=False)
def name_that_is_not_utf8(folder: Path) -> None:
    (folder / UP).rename(folder / "renders/caf\udce9")


@case(reconstruction, LayoutError, "renders", "230 characters")
def name_too_long_for_a_temporary_one(folder: Path) -> None:
    (folder / UP).rename(folder / "renders" / ("up" * 115))


@case(reconstruction, LayoutError, "renders", "the name of something else", "pano_bank")
def name_of_the_start_frames(folder: Path) -> None:
    (folder / UP).rename(folder / "renders/pano_bank")


@case(perspective, LayoutError, "render_results", "the name of something else", "plan.json")
def view_named_as_the_plan(folder: Path) -> None:
    (folder / "render_results/view0").rename(folder / "render_results/plan.json")


@case(perspective, LayoutError, "meta_info.json: scene_type", "'perspective'", "pano_bank/")
def one_start_image_and_a_bank(folder: Path) -> None:
    make_pano_bank(folder / "render_results/pano_bank", 2, SIZE)


@case(perspective, LayoutError, "start_frame.png", "missing")
def start_image_of_a_perspective_missing(folder: Path) -> None:
    (folder / "start_frame.png").unlink()


@case(reconstruction, LayoutError, "image.png", "no regular file", uploadable=False)
def image_is_a_pipe(folder: Path) -> None:
    (folder / "image.png").unlink()
    os.mkfifo(folder / "image.png")


@case(reconstruction, LayoutError, "image.png", "out of the scene folder", uploadable=False)
def image_links_outside(folder: Path) -> None:
    outside = shutil.move(folder / "image.png", folder.parent / "outside.png")
    (folder / "image.png").symlink_to(outside)


@case(reconstruction, LayoutError, "renders/traj_up", "out of the scene folder", uploadable=False)
def trajectory_links_outside(folder: Path) -> None:
    outside = shutil.move(folder / UP, folder.parent / "outside")
    (folder / UP).symlink_to(outside)


@case(reconstruction, LayoutError, "renders/traj_down", "circle", uploadable=False)
def links_in_a_circle(folder: Path) -> None:
    (folder / "renders/traj_down").symlink_to("traj_down")


@case(panorama, LayoutError, "pano_bank", "no such folder")
def bank_missing(folder: Path) -> None:
    shutil.rmtree(folder / "pano_bank")


@case(panorama, LayoutError, "pano_bank/cameras.json", "missing")
def bank_cameras_missing(folder: Path) -> None:
    (folder / "pano_bank/cameras.json").unlink()


@case(panorama, LayoutError, "pano_bank/cameras.json", "without an image: 0001")
def bank_image_missing(folder: Path) -> None:
    (folder / "pano_bank/images/0001.png").unlink()


@case(panorama, LayoutError, "pano_bank/cameras.json", "without a camera: 0002")
def bank_camera_missing(folder: Path) -> None:
    edit(folder / "pano_bank/cameras.json", lambda content: content.pop("0002"))


@case(panorama, LayoutError, "pano_bank/images", "0001.jpg")
def bank_images_of_one_name(folder: Path) -> None:
    shutil.copy(folder / "pano_bank/images/0001.png", folder / "pano_bank/images/0001.jpg")


@case(panorama, MediaError, "pano_bank/images/0002.png", "cut")
def bank_image_cut(folder: Path) -> None:
    cut(folder / "pano_bank/images/0002.png")


@case(panorama, CameraError, "pano_bank/cameras.json: 0001: extrinsic[0]", "not finite")
def bank_camera_not_finite(folder: Path) -> None:
    def spoil(content: Any) -> None:
        content["0001"]["extrinsic"][0][0] = float("inf")

    edit(folder / "pano_bank/cameras.json", spoil)


@case(panorama, CameraError, "pano_bank/cameras.json: 0000", "a list of 2")
def bank_entry_is_a_list(folder: Path) -> None:
    edit(folder / "pano_bank/cameras.json", lambda content: content.update({"0000": [1, 2]}))


@case(panorama, LayoutError, "view0/start_frame.png", "missing")
def start_frame_missing(folder: Path) -> None:
    (folder / "view0/start_frame.png").unlink()


@case(panorama, PromptError, "view0/traj0/traj_caption.json", "no such file")
def caption_missing(folder: Path) -> None:
    (folder / "view0/traj0/traj_caption.json").unlink()


@case(panorama, LayoutError, "reconstruct_0/traj1", "no trajectory traj0")
def iterative_without_its_first(folder: Path) -> None:
    shutil.rmtree(folder / "reconstruct_0/traj0")


@case(panorama, LayoutError, "no trajectory to generate", "view0", "the text 'no'")
def every_view_rejected(folder: Path) -> None:
    for view in ("view0", "reconstruct_0"):
        write_json(folder / view / "valid_analysis.json", {"valid": "no"})


@case(panorama, LayoutError, "view0/valid_analysis.json", "JSONDecodeError")
def analysis_is_no_json(folder: Path) -> None:
    (folder / "view0/valid_analysis.json").write_text("yes")


@case(panorama, LayoutError, "meta_info.json: scene_type", "the text 'mesh'")
def scene_type_unknown(folder: Path) -> None:
    write_json(folder / "meta_info.json", {"scene_type": "mesh"})


@case(reconstruction, LayoutError, "meta_info.json: scene_type", "'panorama'", "renders/")
def scene_type_contradicts(folder: Path) -> None:
    write_json(folder / "meta_info.json", {"scene_type": "panorama"})


@case(single_view, LayoutError, "depth.npy", "no depth file in the folder")
def depth_missing(folder: Path) -> None:
    (folder / "depth.npy").unlink()


@case(single_view, LayoutError, "depth.npy", "depth.npy, depth.exr")
def two_depth_maps(folder: Path) -> None:
    shutil.copy(folder / "depth.npy", folder / "depth.exr")


@case(single_view, MediaError, "depth.npy", "48 rows x 32 columns")
def depth_of_another_shape(folder: Path) -> None:
    np.save(folder / "depth.npy", np.ones((48, 32), np.float32))


@case(single_view, MediaError, "depth.npy", "no pixel with a positive finite depth")
def depth_all_zero(folder: Path) -> None:
    np.save(folder / "depth.npy", np.zeros(SIZE, np.float32))


@case(single_view, MediaError, "depth.npy", "-1")
def depth_negative(folder: Path) -> None:
    np.save(folder / "depth.npy", np.full(SIZE, -1, np.float32))


@case(single_view, MediaError, "depth.npy", "no readable depth map")
def depth_is_text(folder: Path) -> None:
    (folder / "depth.npy").write_text("3 metres or so")


@case(single_view, MediaError, "depth.npy", "a broken .npy file")
def depth_header_has_no_end(folder: Path) -> None:
    data = (folder / "depth.npy").read_bytes()
    (folder / "depth.npy").write_bytes(data.replace(b"(32, 48)", b"(32, 48 "))


@case(single_view, MediaError, "depth.npy", "Python objects")
def depth_is_pickled(folder: Path) -> None:
    np.save(folder / "depth.npy", np.array([{"depth": 3}], dtype=object), allow_pickle=True)


@case(single_view, CameraError, "camera.json", "20 cameras")
def single_view_with_20_cameras(folder: Path) -> None:
    def drop(content: Any) -> None:
        content["extrinsic"].pop()
        content["intrinsic"].pop()

    edit(folder / "camera.json", drop)


@case(single_view, CameraError, "camera.json: intrinsic[0]", "principal point")
def single_view_with_a_smaller_image(folder: Path) -> None:
    Image.fromarray(picture(0, (16, 16))).save(folder / "image.png")


@case(reconstruction, ParameterError, "task_type", "'video'", arguments={"task_type": "video"})
def task_unknown(folder: Path) -> None:
    """Nothing is wrong with the folder."""


@case(
    reconstruction,
    ParameterError,
    "task_type",
    "'panorama' for a reconstruction folder",
    arguments={"task_type": "panorama"},
)
def task_contradicts(folder: Path) -> None:
    """Nothing is wrong with the folder."""


@case(reconstruction, ParameterError, "align_nframe", "got 21", arguments={"align_nframe": 21})
def align_nframe_too_large(folder: Path) -> None:
    """Nothing is wrong with the folder."""


@case(reconstruction, ParameterError, "align_nframe", "got 0", arguments={"align_nframe": 0})
def align_nframe_zero(folder: Path) -> None:
    """Nothing is wrong with the folder."""


@case(
    single_view,
    MediaError,
    "absent.npy",
    "no such file",
    arguments={"depth": Path("absent.npy")},
)
def given_depth_missing(folder: Path) -> None:
    """Nothing is wrong with the folder."""


@case(
    reconstruction,
    ParameterError,
    "depth",
    "depth.npy for a reconstruction folder",
    arguments={"depth": Path("depth.npy")},
)
def depth_for_a_scene_with_renders(folder: Path) -> None:
    np.save(folder.parent / "depth.npy", np.ones(SIZE, np.float32))
