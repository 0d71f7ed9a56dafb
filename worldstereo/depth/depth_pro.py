"""Depth Pro (Bochkovskii et al., 2024) through transformers: depth in metres and field of view.

Owns what its image processor does, before and after the network, since that one demands
torchvision: values normalised, then the image squeezed to the network's square; the inverse depth
that comes out is scaled by the focal length and resized to the image.
transformers is imported when the network is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import interpolate

from worldstereo.depth.protocol import DepthMap, metric_map
from worldstereo.errors import CheckpointError, MediaError
from worldstereo.models.progress import without_progress_bars
from worldstereo.models.source import checked_config, fetch, shortened
from worldstereo.types import UInt8

PUBLISHED_DEPTH_PRO = "apple/DepthPro-hf"

_PREPROCESSING = "preprocessor_config.json"
_FILES = ("config.json", _PREPROCESSING, "*.safetensors", "*.safetensors.index.json")
_KIND = "a Depth Pro folder in the layout of transformers, or a Hugging Face repository"
# Bounds of the inverse depth, in 1/m: what lies farther counts as 10 km away.
_FARTHEST, _NEAREST = 1e-4, 1e4


class Size(BaseModel):
    """Pixels that the network takes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    height: int = Field(gt=0)
    width: int = Field(gt=0)


class Preprocessing(BaseModel):
    """``preprocessor_config.json`` of a Depth Pro folder; other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    size: Size = Size(height=1536, width=1536)
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    rescale_factor: float = Field(default=1 / 255, gt=0)
    resample: Literal[2] = Field(default=2, description="bilinear, in Pillow's numbering")
    antialias: Literal[False] = False
    do_resize: Literal[True] = True
    do_rescale: Literal[True] = True
    do_normalize: Literal[True] = True


class DepthPro:
    """The ``DepthSource`` that runs Depth Pro; ``from_pretrained`` loads it.

    The network sees one image at a time: that is dozens of patches at once already, and the
    image's depth then has the same bits whatever it is asked for together with.

    Args:
        network: ``DepthProForDepthEstimation`` with a field-of-view head, ready to run.
        preprocessing: what an image goes through before.
        name: how errors call the network.
    """

    def __init__(self, network: Any, preprocessing: Preprocessing, name: str) -> None:
        self._network = network
        self._preprocessing = preprocessing
        self._name = name

    @classmethod
    def from_pretrained(
        cls,
        repo_or_folder: str | Path = PUBLISHED_DEPTH_PRO,
        *,
        device: str = "cpu",
        local_files_only: bool = False,
    ) -> DepthPro:
        """Load the network: in half precision on a GPU, as published, else in float32.

        Args:
            repo_or_folder: a folder with config.json, preprocessor_config.json and
                model.safetensors, or a repository on the Hugging Face Hub.
            device: torch device to run on.
            local_files_only: never ask the Hub.

        Raises:
            CheckpointError: the weights cannot be found or read, do not fit, or belong to a
                network that does not estimate the field of view.
        """
        name = str(repo_or_folder)
        folder = _folder_of(name, local_files_only)
        preprocessing = _read_preprocessing(folder)
        dtype = torch.float16 if torch.device(device).type == "cuda" else torch.float32
        network = _load_network(folder, name, dtype)
        return cls(network.to(device), preprocessing, name)

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        """Depth in metres and intrinsics of each image.

        Args:
            images: each [H, W, 3] uint8 RGB, of any size.

        Returns:
            Maps of the images' sizes; the principal point is the image's centre, and pixels are
            square. What is infinitely far is at most 10 km away.

        Raises:
            MediaError: the network finds no usable depth or field of view in an image.
        """
        # All is queued before the first result is waited for: a GPU then never waits for us.
        queued = [self._queue(image) for image in images]
        return [self._fetch(*results) for results in queued]

    @torch.inference_mode()
    def _queue(self, image: UInt8) -> tuple[Tensor, Tensor]:
        """Depth [H, W] in metres and field of view in degrees, on the device."""
        assert image.ndim == 3, image.shape
        assert image.dtype == np.uint8, image.dtype
        height, width = image.shape[:2]
        parameter = next(self._network.parameters())
        pixels = prepare(image, self._preprocessing, parameter.device)
        output = self._network(pixels.to(parameter.dtype))
        degrees = output.field_of_view.float()[0]
        focal = focal_length(degrees, width)
        return metres(output.predicted_depth.float(), focal, height, width), degrees

    def _fetch(self, depth: Tensor, degrees: Tensor) -> DepthMap:
        angle = float(degrees)
        if not 0 < angle < 180:
            raise MediaError(
                "no usable field of view is found in the image",
                where=self._name,
                got=f"{angle:.6g} degrees",
                allowed="between 0 and 180",
                fix="give the depth, or an image in ordinary perspective",
            )
        height, width = depth.shape
        f = float(focal_length(degrees, width))
        intrinsics = np.array([[f, 0, width / 2], [0, f, height / 2], [0, 0, 1]], np.float32)
        return metric_map(depth.cpu().numpy(), intrinsics, self._name)


def focal_length(degrees: Tensor, width: int) -> Tensor:
    """Focal length in pixels of the camera that sees ``degrees`` over ``width`` pixels."""
    return 0.5 * width / torch.tan(0.5 * torch.deg2rad(degrees))


def prepare(image: UInt8, preprocessing: Preprocessing, device: torch.device) -> Tensor:
    """An image as the network takes it: normalised, then resized without regard to its aspect.

    Args:
        image: [H, W, 3] uint8.
        preprocessing: the network's.
        device: where to do it.

    Returns:
        [1, 3, size, size] float32, resized bilinearly and, as published, without antialiasing.
    """
    mean = torch.tensor(preprocessing.image_mean, device=device).view(3, 1, 1)
    std = torch.tensor(preprocessing.image_std, device=device).view(3, 1, 1)
    # A copy: arrays that come through Ray's object store are read-only, which torch warns of.
    values = torch.from_numpy(image.copy()).to(device).permute(2, 0, 1).float()
    normalised = (values * preprocessing.rescale_factor - mean) / std
    size = (preprocessing.size.height, preprocessing.size.width)
    return interpolate(normalised[None], size=size, mode="bilinear", align_corners=False)


def metres(inverse: Tensor, focal: Tensor, height: int, width: int) -> Tensor:
    """Depth from the network's canonical inverse depth (equation 1 of the paper).

    Args:
        inverse: [1, h, w] float32, for a camera whose focal length is the image's width.
        focal: focal length in pixels of the image, a scalar.
        height: rows of the image.
        width: its columns.

    Returns:
        [height, width] float32 in metres, from 0.1 mm to 10 km.
    """
    scaled = inverse[None] * width / focal
    resized = interpolate(scaled, size=(height, width), mode="bilinear", align_corners=False)
    return 1.0 / resized[0, 0].clamp(_FARTHEST, _NEAREST)


def _folder_of(name: str, local_files_only: bool) -> Path:
    local = Path(name).expanduser()
    if local.is_dir():
        return local
    try:
        return fetch(name, _FILES, local_files_only=local_files_only)
    except CheckpointError as error:
        raise CheckpointError(
            "the depth estimator cannot be found",
            where=name,
            got=error.got or error.what,
            allowed=_KIND,
            fix=error.fix or f"to fetch the published one, type: hf download {PUBLISHED_DEPTH_PRO}",
        ) from error


def _read_preprocessing(folder: Path) -> Preprocessing:
    file = folder / _PREPROCESSING
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            "the depth estimator's folder lacks a file, or it cannot be read",
            where=str(file),
            got=f"{type(error).__name__}: {error}",
            allowed=_KIND,
            fix=f"download it again: hf download {PUBLISHED_DEPTH_PRO}",
        ) from error
    return checked_config(values, str(file), Preprocessing)


def _load_network(folder: Path, name: str, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import DepthProForDepthEstimation

    # What transformers raises for a file that is missing, cut off or of another kind.
    unreadable = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError)
    try:
        with without_progress_bars():
            network, report = DepthProForDepthEstimation.from_pretrained(
                str(folder),
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
    except unreadable as error:
        raise CheckpointError(
            "the depth estimator cannot be loaded",
            where=name,
            got=f"{type(error).__name__}: {error}".partition("\n")[0],
            allowed=_KIND,
            fix=f"download it again: hf download {PUBLISHED_DEPTH_PRO}",
        ) from error
    # transformers fills what a file lacks with random numbers.
    lacking = sorted(str(key) for key in report.get("missing_keys") or ())
    if lacking:
        raise CheckpointError(
            f"the depth estimator's file lacks {len(lacking)} weights",
            where=name,
            got=f"no {shortened(lacking)}",
            allowed="every weight present, in its shape",
        )
    if not network.use_fov_model:
        raise CheckpointError(
            "the network does not estimate the field of view, without which depth has no unit",
            where=name,
            got="use_fov_model false in config.json",
            allowed=f"a Depth Pro with it, such as {PUBLISHED_DEPTH_PRO}",
        )
    return network.eval().requires_grad_(False)
