"""What a frame looks like, as a vector: needed only where images choose among references.

Owns the protocol that the memory bank asks, and DINOv2's pooled output as the published answer.
transformers is imported when the network is loaded, not before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from worldstereo.errors import CheckpointError
from worldstereo.types import Float32, UInt8

PUBLISHED_FEATURES = "facebook/dinov2-base"
BUNDLED_FEATURES = Path(__file__).parents[1] / "bundled" / "worldstereo-tiny" / "dinov2"


class ImageFeatures(Protocol):
    """Describes frames; the same frame always gets the same vector."""

    def load(self) -> None:
        """Fetch and open whatever is needed, now rather than at the first frame."""
        ...

    def __call__(self, frame: UInt8) -> Float32:
        """Features [D] of one frame [height, width, 3], RGB uint8."""
        ...


class DinoFeatures:
    """Pooled output of a DINOv2 network, in float32 on the CPU.

    The network is loaded at the first frame or by ``load``: scenes in which nothing is reduced
    need none.

    Args:
        source: a folder in the layout of transformers (config.json, model.safetensors,
            preprocessor_config.json) or a repository on the Hugging Face Hub.
        local_files_only: take a repository from the local cache alone.
    """

    def __init__(self, source: str, *, local_files_only: bool = False) -> None:
        self.source = source
        self._local_files_only = local_files_only
        self._loaded: tuple[Any, Any] | None = None

    @classmethod
    def from_pretrained(
        cls, repo_or_folder: str | Path = PUBLISHED_FEATURES, *, local_files_only: bool = False
    ) -> DinoFeatures:
        """Name the network to use; ``load`` or the first frame opens it.

        Args:
            repo_or_folder: ``worldstereo-tiny`` is the bundled one (``BUNDLED_FEATURES``).
            local_files_only: never ask the Hub.
        """
        bundled = str(repo_or_folder) == "worldstereo-tiny"
        source = BUNDLED_FEATURES if bundled else repo_or_folder
        return cls(str(source), local_files_only=local_files_only)

    def load(self) -> None:
        """Load processor and network, once.

        Raises:
            CheckpointError: the folder or repository cannot be loaded.
        """
        if self._loaded is None:
            self._loaded = self._open()

    def _open(self) -> tuple[Any, Any]:
        # The PIL processor whether torchvision is there or not: one result on every machine.
        from transformers import BitImageProcessorPil, Dinov2Model

        from worldstereo.models.progress import without_progress_bars

        local = self._local_files_only
        try:
            with without_progress_bars():
                processor = BitImageProcessorPil.from_pretrained(
                    self.source, local_files_only=local
                )
                network = Dinov2Model.from_pretrained(
                    self.source, local_files_only=local, dtype="float32"
                )
        except (OSError, ValueError) as problem:
            raise CheckpointError(
                "the network for image features cannot be loaded",
                where=self.source,
                got=str(problem).splitlines()[0] if str(problem) else type(problem).__name__,
                allowed="a DINOv2 folder in the layout of transformers, or a repository",
                fix=f"fetch it once: hf download {PUBLISHED_FEATURES}",
            ) from problem
        return processor, network.eval()

    def __call__(self, frame: UInt8) -> Float32:
        """Describe one frame.

        Args:
            frame: [height, width, 3] uint8, RGB.

        Returns:
            [D] float32; 768 numbers for the published network.

        Raises:
            CheckpointError: the network cannot be loaded.
        """
        import torch

        self.load()
        assert self._loaded is not None
        processor, network = self._loaded
        pixels = processor(images=frame, return_tensors="pt").pixel_values
        with torch.no_grad():
            pooled = network(pixels).pooler_output[0]
        features: Float32 = pooled.numpy().astype(np.float32)
        return features
