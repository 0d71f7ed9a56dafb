"""What a worker runs: anything that turns a prepared clip into frames, and how it is loaded.

The engine is named by configuration, so that cluster tests can run a small deterministic one
through the very same path. Nothing here imports torch before an engine is loaded.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from worldstereo.config import ComputeOptions, Variant
from worldstereo.errors import ParameterError
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.types import Clip, Progress, UInt8

if TYPE_CHECKING:
    from worldstereo.parallel.mesh import ParallelMesh


Precision = Literal["float32", "bfloat16"]


class ClipEngine(Protocol):
    """Generates clips one at a time; the same clip gives the same bits in any process.

    Where several ranks share a clip each has an engine, and all are called with the same clip. What
    ``on_stage`` raises on rank 0 ends the clip on every rank in the same place, through
    ``ParallelMesh.agree``.
    """

    def generate(
        self,
        clip: Clip,
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        on_stage: Callable[[Progress], None] | None = None,
    ) -> UInt8:
        """Frames [F, height, width, 3] of the clip; those of rank 0 count.

        Args:
            clip: everything that it is generated from.
            num_inference_steps: denoising steps; None: the variant's published count.
            guidance_scale: None: the variant's published scale.
            on_stage: called when a stage starts and after each denoising step; what it raises
                (``GenerationCancelled``) ends the clip at once.
        """
        ...


@dataclass(frozen=True)
class EngineSpec:
    """What an engine is loaded from.

    Attributes:
        factory: ``module:function`` that takes this and the rank's ``ParallelMesh``, None where
            there is one rank, and returns the engine.
        source: bundled name, Hub repository or folder of the weights.
        variant: folder of the variant in it.
        device: torch device of the worker.
        precision: dtype of the weights.
        torch_threads: CPU threads of the process; None leaves torch's choice.
        local_files_only: whether the Hub must not be asked.
        parallel: the ranks that share a clip.
        options: attention backend, compilation, 8-bit products.
        encoder_precision: dtype of the text and image encoders.
        compile_cache: folder on a local disk where compiled code is kept for the next start;
            None leaves torch's choice.
    """

    factory: str
    source: str
    variant: Variant
    device: Literal["cpu", "cuda"]
    precision: Precision
    torch_threads: int | None
    local_files_only: bool
    parallel: ParallelLayout = field(default_factory=ParallelLayout)
    options: ComputeOptions = field(default_factory=ComputeOptions)
    encoder_precision: Precision = "float32"
    compile_cache: Path | None = None


def load_engine(spec: EngineSpec, mesh: ParallelMesh | None) -> ClipEngine:
    """Load the engine that ``spec.factory`` names.

    Args:
        spec: what to load.
        mesh: this rank's place; None where there is one rank, so that an engine without a model
            needs no torch.

    Raises:
        ParameterError: there is no such function.
        CheckpointError: from the factory: weights are missing or do not fit.
    """
    module_name, _, name = spec.factory.partition(":")
    try:
        factory: Callable[[EngineSpec, ParallelMesh | None], ClipEngine] = getattr(
            importlib.import_module(module_name), name
        )
    except (ImportError, AttributeError) as error:
        raise ParameterError(
            f"cannot load the engine: {error}",
            where="engine",
            got=repr(spec.factory),
            allowed="module:function, such as actors.engine:load_worldstereo",
        ) from error
    return factory(spec, mesh)


def load_worldstereo(spec: EngineSpec, mesh: ParallelMesh | None) -> ClipEngine:
    """The real engine: ``WorldStereo.from_pretrained`` on the worker's device, warmed up."""
    if spec.compile_cache is not None:
        # This process is the worker's own; torch asks its environment when it first compiles.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(spec.compile_cache.expanduser().absolute())
    import torch

    from worldstereo import WorldStereo

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    model = WorldStereo.from_pretrained(
        spec.source,
        subfolder=spec.variant,
        local_files_only=spec.local_files_only,
        device=spec.device,
        dtype=dtypes[spec.precision],
        encoder_dtype=dtypes[spec.encoder_precision],
        options=spec.options,
        mesh=mesh,
    )
    if spec.options.compile:
        model.warm_up()
    return model
