"""The published inputs of one clip: made from a :class:`Clip`, and checked before anything runs.

Owns the step from pictures and cameras to tensors and the messages about tensors that do not fit
each other. Encoding them is the business of ``conditions``.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from worldstereo.errors import ParameterError
from worldstereo.geometry.cameras import normalise_cameras, quaternion_translation, unify_cameras
from worldstereo.geometry.rays import plucker_embedding
from worldstereo.types import Clip, Float32, UInt8


@dataclass(frozen=True, eq=False)
class ClipInputs:
    """Tensors of one clip as the published Python API names them; float32, any device.

    Attributes:
        image: start frame; resized where it has another size than the render.
        render_video: [1, 3, F, H, W] in [-1, 1]; its frame 0 is used as it is.
        render_mask: [1, 1, F, H, W], 1 where nothing was rendered.
        camera_embedding: [1, 6, F, H, W].
        reference_video: [1, 3, R, H, W] in [-1, 1]; None in a memory variant: the start frame.
        ref_index: R numbers in 0..F-2.
        camera_qt: [1, F, 7].
        camera_qt_ref: [1, R, 7].
    """

    image: Image.Image
    render_video: torch.Tensor
    render_mask: torch.Tensor
    camera_embedding: torch.Tensor
    reference_video: torch.Tensor | None = None
    ref_index: Sequence[int] | torch.Tensor | None = None
    camera_qt: torch.Tensor | None = None
    camera_qt_ref: torch.Tensor | None = None

    @property
    def frames(self) -> int:
        """F."""
        return self.render_video.shape[2]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        height, width = self.render_video.shape[-2:]
        return height, width

    def start_frame(self) -> Image.Image:
        """The start image in RGB at working size (bicubic)."""
        height, width = self.size
        image = self.image.convert("RGB")
        if image.size == (width, height):
            return image
        return image.resize((width, height), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class InputRules:
    """What a loaded model demands of its inputs.

    Attributes:
        memory: whether references are attended to.
        camera_qt: whether the model embeds ``camera_qt`` and ``camera_qt_ref``.
        size_multiple: height and width are multiples of it (VAE factor times patch size).
        mask_downsample: of config.json; mask and rays have this many frames for each one after
            the first.
        ranks: that share the tokens of each frame evenly; a token covers ``size_multiple`` squared
            pixels.
    """

    memory: bool
    camera_qt: bool
    size_multiple: int
    mask_downsample: int
    ranks: int = 1


def to_unit_range(frames: UInt8) -> torch.Tensor:
    """Pixels [N, H, W, 3] uint8 as [1, 3, N, H, W] float32 in [-1, 1]."""
    values = torch.from_numpy(frames.astype(np.float32) / np.float32(255))
    return (2.0 * values - 1.0).permute(3, 0, 1, 2)[None].contiguous()


def to_pixels(video: torch.Tensor) -> UInt8:
    """Pixels [N, H, W, 3] uint8 (rounded) of a video [1, 3, N, H, W] in [-1, 1]."""
    unit = (video[0].float().cpu() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(1, 2, 3, 0).contiguous().numpy()


def clip_inputs(clip: Clip, *, memory: bool) -> ClipInputs:
    """The published inputs of a clip, cameras normalised.

    Args:
        clip: with cameras for the size of its pictures.
        memory: whether the model attends to references. A clip without any then has its own
            start frame and camera 0 as the one reference.

    Raises:
        ParameterError: references for a model that takes none.
        CameraError: a camera that is not finite.
    """
    if clip.references is not None and not memory:
        raise ParameterError(
            "this variant has no memory and takes no references",
            where=clip.trajectory_id,
            got=f"{len(clip.references.ids)} references",
            fix="use worldstereo-memory or worldstereo-memory-dmd",
        )
    height, width = clip.size
    if (clip.cameras.height, clip.cameras.width) != (height, width):
        raise ParameterError(
            "cameras are stated for another size than the clip's frames",
            where=clip.trajectory_id,
            got=f"{clip.cameras.height}x{clip.cameras.width}",
            allowed=f"{height}x{width}",
        )
    targets = _tensor(clip.cameras.camera_from_world)
    rays = plucker_embedding(
        normalise_cameras(targets), _tensor(clip.cameras.intrinsics), height, width
    )
    mask = torch.from_numpy(clip.hole_mask.astype(np.float32))[None, None]
    image = Image.fromarray(clip.start_image)
    video = to_unit_range(clip.render_video)
    if not memory:
        return ClipInputs(image, video, mask, rays)
    bank = clip.references
    references = targets[:1] if bank is None else _tensor(bank.cameras.camera_from_world)
    targets, references = unify_cameras(targets, references)
    return ClipInputs(
        image,
        video,
        mask,
        rays,
        to_unit_range(clip.start_image[None] if bank is None else bank.frames),
        (0,) if bank is None else bank.ref_index,
        quaternion_translation(targets)[None],
        quaternion_translation(references)[None],
    )


def _tensor(array: Float32) -> torch.Tensor:
    # A copy: clips come to workers as read-only arrays, which torch does not wrap.
    return torch.from_numpy(np.array(array, dtype=np.float32))


def check_clip(clip: Clip, nframe: int) -> None:
    """ParameterError for a clip that has not ``nframe`` cameras, renders and masks."""
    counts = {
        "cameras": len(clip.cameras),
        "render_video": len(clip.render_video),
        "hole_mask": len(clip.hole_mask),
    }
    for name, count in counts.items():
        if count != nframe:
            raise ParameterError(
                "a clip of another length than the model's",
                where=f"{clip.trajectory_id}: {name}",
                got=f"{count} frames",
                allowed=f"{nframe} (nframe of config.json)",
            )


def check_inputs(inputs: ClipInputs, rules: InputRules) -> None:
    """Refuse tensors that do not fit each other or the model.

    Raises:
        ParameterError: names the argument, what it is and what it may be.
    """
    if not isinstance(inputs.image, Image.Image):
        raise ParameterError(
            "the start frame is no PIL image", where="image", got=type(inputs.image).__name__
        )
    video = inputs.render_video
    if not isinstance(video, torch.Tensor) or video.ndim != 5:
        _refuse_shape("render_video", video, "[1, 3, F, H, W]")
    frames, (height, width), multiple = inputs.frames, inputs.size, rules.size_multiple
    if height % multiple or width % multiple or not (height and width and frames):
        raise ParameterError(
            "frames of a size that the model cannot work at",
            where="render_video",
            got=f"{frames} frames of {height}x{width}",
            allowed=f"height and width in multiples of {multiple}",
            fix="resize to one of the model's scale_map",
        )
    tokens = height * width // multiple**2
    if tokens % rules.ranks:
        raise ParameterError(
            f"the tokens of a frame cannot be shared by {rules.ranks} ranks",
            where="render_video",
            got=f"{height}x{width}, {tokens} tokens",
            allowed=f"sizes with a multiple of {rules.ranks} squares of {multiple} pixels",
            fix="resize to one of the model's scale_map, or use fewer ranks",
        )
    maps = rules.mask_downsample * (frames - 1) + 1
    _check_pictures("render_video", video, (1, 3, frames, height, width))
    check_tensor("render_mask", inputs.render_mask, (1, 1, maps, height, width))
    check_tensor("camera_embedding", inputs.camera_embedding, (1, 6, maps, height, width))
    _check_references(inputs, rules)


def _check_references(inputs: ClipInputs, rules: InputRules) -> None:
    names = ("reference_video", "ref_index", "camera_qt", "camera_qt_ref")
    given = [name for name in names if getattr(inputs, name) is not None]
    if not rules.memory:
        if given:
            raise ParameterError(
                "this variant has no memory and takes no references",
                where=given[0],
                fix="use worldstereo-memory or worldstereo-memory-dmd, or leave it out",
            )
        return
    frames, (height, width) = inputs.frames, inputs.size
    count = 1
    if inputs.reference_video is not None:
        video = inputs.reference_video
        if not isinstance(video, torch.Tensor) or video.ndim != 5 or not video.shape[2]:
            _refuse_shape("reference_video", video, f"[1, 3, R, {height}, {width}] with R >= 1")
        count = video.shape[2]
        _check_pictures("reference_video", video, (1, 3, count, height, width))
    index = reference_index(inputs)
    if len(index) != count or not all(0 <= entry <= frames - 2 for entry in index):
        raise ParameterError(
            "references are not placed beside frames of the clip",
            where="ref_index",
            got=str(list(index)),
            allowed=f"{count} numbers in 0..{frames - 2}",
        )
    if rules.camera_qt:
        check_tensor("camera_qt", inputs.camera_qt, (1, frames, 7))
        if inputs.reference_video is not None or inputs.camera_qt_ref is not None:
            check_tensor("camera_qt_ref", inputs.camera_qt_ref, (1, count, 7))


def reference_index(inputs: ClipInputs) -> tuple[int, ...]:
    """``ref_index`` as numbers; of the start frame as its own reference where none is given.

    Raises:
        ParameterError: it is no list of whole numbers.
    """
    index = inputs.ref_index
    if index is None:
        return (0,) if inputs.reference_video is None else ()
    if isinstance(index, torch.Tensor):
        index = index.flatten().tolist()
    try:
        return tuple(operator.index(entry) for entry in index)
    except TypeError as error:
        raise ParameterError(
            "positions of references that are no list of whole numbers",
            where="ref_index",
            got=repr(inputs.ref_index),
            allowed="one whole number for each reference",
        ) from error


def _check_pictures(name: str, value: torch.Tensor, shape: tuple[int, ...]) -> None:
    check_tensor(name, value, shape)
    if not value.is_floating_point():
        raise ParameterError(
            "pictures that are no floats",
            where=name,
            got=str(value.dtype),
            allowed="floats in [-1, 1]",
            fix="divide bytes by 127.5 and subtract 1",
        )


def check_tensor(name: str, value: torch.Tensor | None, shape: tuple[int, ...]) -> None:
    """Refuse what is no tensor of this shape, or not finite.

    Raises:
        ParameterError: names the argument.
    """
    if not isinstance(value, torch.Tensor) or tuple(value.shape) != shape:
        _refuse_shape(name, value, str(list(shape)))
    elif not bool(torch.isfinite(value).all()):
        raise ParameterError("values that are not finite", where=name, got="NaN or infinity")


def _refuse_shape(name: str, value: object, allowed: str) -> None:
    got = str(list(value.shape)) if isinstance(value, torch.Tensor) else type(value).__name__
    raise ParameterError("an argument of another shape", where=name, got=got, allowed=allowed)
