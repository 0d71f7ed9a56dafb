"""MoGe-2 (Wang et al., 2025) through the package moge: depth in metres, a mask and intrinsics.

The package is on no index; it is installed from its repository and imported when asked for.
Only its public interface is used: ``MoGeModel.from_pretrained`` and ``infer``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch

from worldstereo.depth.protocol import DepthMap, metric_map
from worldstereo.errors import CheckpointError, MediaError, MissingDependencyError
from worldstereo.types import Float32, UInt8

PUBLISHED_MOGE = "Ruicheng/moge-2-vitl-normal"
INSTALL = (
    'pip install "moge @ git+https://github.com/microsoft/MoGe.git'
    '@0286b495230a074aadf1c76cc5c679e943e5d1c6"'
)

_WEIGHTS = "model.pt"


class MogeDepth:
    """The ``DepthSource`` that runs MoGe-2; ``from_pretrained`` loads it.

    The network sees one image at a time, so that an image's depth has the same bits whatever it
    is asked for together with.

    Args:
        network: a ``MoGeModel`` of ``moge.model.v2``, ready to run.
        device: torch device that it lies on.
        name: how errors call the network.
    """

    def __init__(self, network: Any, device: str, name: str) -> None:
        self._network = network
        self._device = torch.device(device)
        self._name = name

    @classmethod
    def from_pretrained(
        cls,
        repo_or_file: str | Path = PUBLISHED_MOGE,
        *,
        device: str = "cpu",
        local_files_only: bool = False,
    ) -> MogeDepth:
        """Load the network.

        Args:
            repo_or_file: a repository on the Hugging Face Hub, its model.pt, or the folder that
                holds that file. The package reads it with torch's loader for weights alone.
            device: torch device to run on.
            local_files_only: never ask the Hub.

        Raises:
            MissingDependencyError: the package moge is not installed.
            CheckpointError: the weights cannot be found or read.
        """
        import httpx

        name = str(repo_or_file)
        model = _model_class()
        local = Path(name).expanduser()
        place = local / _WEIGHTS if local.is_dir() else local
        here = place.is_file()
        hub = {} if here else {"local_files_only": local_files_only}
        # What the Hub and torch raise for a file that is missing, cut off or of another kind.
        unreadable = (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
            EOFError,
            httpx.HTTPError,
            UnpicklingError,
        )
        try:
            network = model.from_pretrained(str(place) if here else name, **hub)
        except unreadable as error:
            raise CheckpointError(
                "the depth estimator cannot be loaded",
                where=name,
                got=f"{type(error).__name__}: {error}".partition("\n")[0],
                allowed="a MoGe-2 model.pt, the folder that holds it, or a Hugging Face repository",
                fix=f"to fetch the published one, type: hf download {PUBLISHED_MOGE} {_WEIGHTS}",
            ) from error
        return cls(network.to(device).eval(), device, name)

    def depths_of(self, images: Sequence[UInt8]) -> list[DepthMap]:
        """Depth in metres and intrinsics of each image; sky and what is unsure is invalid.

        Args:
            images: each [H, W, 3] uint8 RGB, of any size.

        Returns:
            Maps of the images' sizes.

        Raises:
            MediaError: the network finds no valid depth or no intrinsics in an image.
        """
        return [self._depth_of(image) for image in images]

    def _depth_of(self, image: UInt8) -> DepthMap:
        assert image.ndim == 3, image.shape
        assert image.dtype == np.uint8, image.dtype
        # A copy: arrays that come through Ray's object store are read-only, which torch warns of.
        values = torch.from_numpy(image.copy()).to(self._device).permute(2, 0, 1).float() / 255
        # On the CPU half precision is slow, and not there for all operations.
        output = self._network.infer(values, use_fp16=self._device.type == "cuda")
        depth = torch.where(output["mask"].bool(), output["depth"].float(), 0.0)
        intrinsics = in_pixels(output["intrinsics"].float().cpu().numpy(), *image.shape[:2])
        if not np.isfinite(intrinsics).all() or intrinsics[0, 0] <= 0 or intrinsics[1, 1] <= 0:
            raise MediaError(
                "no usable field of view is found in the image",
                where=self._name,
                got=f"focal lengths {intrinsics[0, 0]:.6g} and {intrinsics[1, 1]:.6g} pixels",
                fix="give the depth, or an image in ordinary perspective",
            )
        return metric_map(depth.cpu().numpy(), intrinsics, self._name)


def in_pixels(normalised: Float32, height: int, width: int) -> Float32:
    """Intrinsics in pixels from those in which the image is one wide and one high.

    Args:
        normalised: [3, 3].
        height: rows of the image.
        width: its columns.

    Returns:
        [3, 3] float32.
    """
    scale = np.array([[width], [height], [1]], dtype=np.float32)
    return np.asarray(normalised * scale, dtype=np.float32)


def _model_class() -> Any:
    try:
        from moge.model.v2 import MoGeModel
    except ImportError as error:
        raise MissingDependencyError(
            "estimating depth with MoGe-2 needs the package moge",
            where="depth estimator moge",
            got=str(error),
            fix=f"install it with: {INSTALL}; or use the estimator depth_pro, or give the depth",
        ) from error
    return MoGeModel
