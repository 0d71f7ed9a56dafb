"""A clip's pictures and cameras as the published inputs, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.sampling.clips import make_clip
from worldstereo.errors import CameraError, ParameterError
from worldstereo.geometry.cameras import normalise_cameras, quaternion_translation, unify_cameras
from worldstereo.geometry.rays import plucker_embedding
from worldstereo.sampling.inputs import (
    ClipInputs,
    InputRules,
    check_inputs,
    clip_inputs,
    reference_index,
    to_pixels,
    to_unit_range,
)
from worldstereo.types import Clip

MEMORY = InputRules(memory=True, camera_qt=True, size_multiple=16, mask_downsample=1)
CAMERA = replace(MEMORY, memory=False, camera_qt=False)


def test_pixels_survive_the_way_to_tensors_and_back() -> None:
    frames = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    video = to_unit_range(frames)
    assert video.shape == (1, 3, 1, 16, 16)
    assert video.dtype == torch.float32
    assert (float(video.min()), float(video.max())) == (-1, 1)
    assert np.array_equal(to_pixels(video), frames)


def test_pixels_out_of_range_are_clipped() -> None:
    video = torch.tensor([-1.5, -1.0, 0.0, 1.0, 1.5]).expand(1, 3, 1, 1, 5)
    assert to_pixels(video)[0, 0, :, 0].tolist() == [0, 0, 128, 255, 255]


def test_a_clip_becomes_the_published_inputs(clip: Clip) -> None:
    inputs = clip_inputs(clip, memory=True)
    check_inputs(inputs, MEMORY)
    assert clip.references is not None
    cameras = torch.from_numpy(clip.cameras.camera_from_world)
    intrinsics = torch.from_numpy(clip.cameras.intrinsics)
    rays = plucker_embedding(normalise_cameras(cameras), intrinsics, 32, 48)
    assert torch.equal(inputs.camera_embedding, rays)
    bank = torch.from_numpy(clip.references.cameras.camera_from_world)
    targets, references = unify_cameras(cameras, bank)
    assert inputs.camera_qt is not None
    assert inputs.camera_qt_ref is not None
    assert torch.equal(inputs.camera_qt[0], quaternion_translation(targets))
    assert torch.equal(inputs.camera_qt_ref[0], quaternion_translation(references))
    assert reference_index(inputs) == clip.references.ref_index
    assert np.array_equal(np.asarray(inputs.start_frame()), clip.start_image)
    assert np.array_equal(inputs.render_mask[0, 0].numpy(), clip.hole_mask.astype(np.float32))
    assert np.array_equal(to_pixels(inputs.render_video), clip.render_video)


def test_a_memory_clip_without_references_has_its_start_frame_as_one() -> None:
    inputs = clip_inputs(make_clip(references=0), memory=True)
    check_inputs(inputs, MEMORY)
    assert reference_index(inputs) == (0,)
    assert inputs.reference_video is not None
    assert torch.equal(inputs.reference_video[:, :, 0], inputs.render_video[:, :, 0])
    assert inputs.camera_qt is not None
    assert inputs.camera_qt_ref is not None
    assert torch.equal(inputs.camera_qt_ref, inputs.camera_qt[:, :1])


def test_the_camera_variant_has_no_references() -> None:
    inputs = clip_inputs(make_clip(references=0), memory=False)
    check_inputs(inputs, CAMERA)
    assert inputs.reference_video is None
    with pytest.raises(ParameterError, match=r"renders/traj_up: .* takes no references"):
        clip_inputs(make_clip(references=2), memory=False)


def test_the_start_image_is_resized_to_the_render(clip: Clip) -> None:
    inputs = clip_inputs(clip, memory=True)
    large = Image.fromarray(clip.start_image).resize((97, 61)).convert("RGBA")
    resized = replace(inputs, image=large).start_frame()
    expected = large.convert("RGB").resize((48, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(resized), np.asarray(expected))


def test_a_camera_that_is_not_finite_is_named(clip: Clip) -> None:
    matrices = clip.cameras.camera_from_world.copy()
    matrices[7, 0, 3] = np.nan
    broken = replace(clip, cameras=replace(clip.cameras, camera_from_world=matrices))
    with pytest.raises(CameraError, match="7"):
        clip_inputs(broken, memory=True)


def test_cameras_of_another_size_are_refused(clip: Clip) -> None:
    with pytest.raises(ParameterError, match=r"got 64x96; allowed: 32x48"):
        clip_inputs(replace(clip, cameras=clip.cameras.resized(64, 96)), memory=True)


ZEROS = torch.zeros
REFUSED: dict[str, dict[str, Any]] = {
    "no image": {"image": ZEROS(3, 32, 48)},
    "render of four dimensions": {"render_video": ZEROS(3, 21, 32, 48)},
    "render that is no tensor": {"render_video": None},
    "two clips at once": {"render_video": ZEROS(2, 3, 21, 32, 48)},
    "height off the grid": {"render_video": ZEROS(1, 3, 21, 40, 48)},
    "no frames": {"render_video": ZEROS(1, 3, 0, 32, 48)},
    "mask of other frames": {"render_mask": ZEROS(1, 1, 20, 32, 48)},
    "mask at latent size": {"render_mask": ZEROS(1, 1, 21, 4, 6)},
    "rays of three channels": {"camera_embedding": ZEROS(1, 3, 21, 32, 48)},
    "rays that are not finite": {"camera_embedding": torch.full((1, 6, 21, 32, 48), torch.nan)},
    "references of another size": {"reference_video": ZEROS(1, 3, 2, 16, 48)},
    "no references": {"reference_video": ZEROS(1, 3, 0, 32, 48)},
    "index too short": {"ref_index": (0,)},
    "index of the last frame": {"ref_index": (0, 20)},
    "negative index": {"ref_index": (-1, 0)},
    "no index": {"ref_index": None},
    "index between frames": {"ref_index": (0.5, 1)},
    "index that is no list": {"ref_index": 0},
    "bytes for a render": {"render_video": ZEROS(1, 3, 21, 32, 48, dtype=torch.uint8)},
    "bytes for references": {"reference_video": ZEROS(1, 3, 2, 32, 48, dtype=torch.uint8)},
    "no camera rows": {"camera_qt": None},
    "camera rows without rotation": {"camera_qt": ZEROS(1, 21, 3)},
    "no reference rows": {"camera_qt_ref": None},
    "infinite reference rows": {"camera_qt_ref": torch.full((1, 2, 7), torch.inf)},
}


@pytest.mark.parametrize("changed", REFUSED.values(), ids=REFUSED.keys())
def test_inputs_that_do_not_fit_are_refused(clip: Clip, changed: dict[str, Any]) -> None:
    inputs: ClipInputs = replace(clip_inputs(clip, memory=True), **changed)
    with pytest.raises(ParameterError) as caught:
        check_inputs(inputs, MEMORY)
    assert caught.value.where in changed


def test_references_are_refused_by_a_model_without_memory(clip: Clip) -> None:
    with pytest.raises(ParameterError, match="reference_video: this variant has no memory"):
        check_inputs(clip_inputs(clip, memory=True), CAMERA)


def test_an_index_may_be_a_tensor(clip: Clip) -> None:
    inputs = replace(clip_inputs(clip, memory=True), ref_index=torch.tensor([[3, 0]]))
    check_inputs(inputs, MEMORY)
    assert reference_index(inputs) == (3, 0)


def test_maps_at_video_rate_are_asked_for_where_the_model_takes_them(clip: Clip) -> None:
    inputs = clip_inputs(clip, memory=True)
    rules = replace(MEMORY, mask_downsample=4)
    with pytest.raises(ParameterError, match=r"allowed: \[1, 1, 81, 32, 48\]"):
        check_inputs(inputs, rules)
    maps = {
        "render_mask": ZEROS(1, 1, 81, 32, 48),
        "camera_embedding": ZEROS(1, 6, 81, 32, 48),
    }
    check_inputs(replace(inputs, **maps), rules)
