"""Small clips and the bundled pipelines, each loaded once."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.miniature import miniature
from tests.sampling.clips import make_clip
from worldstereo import WorldStereo
from worldstereo.config import Variant
from worldstereo.types import Clip


@pytest.fixture(scope="session")
def load() -> Callable[[Variant], WorldStereo]:
    """The bundled pipeline of a variant, on the CPU."""
    loaded: dict[Variant, WorldStereo] = {}

    def pipeline(variant: Variant) -> WorldStereo:
        if variant not in loaded:
            loaded[variant] = WorldStereo.from_pretrained(
                miniature(), variant, local_files_only=True, device="cpu"
            )
        return loaded[variant]

    return pipeline


@pytest.fixture(scope="session")
def distilled(load: Callable[[Variant], WorldStereo]) -> WorldStereo:
    return load("worldstereo-memory-dmd")


@pytest.fixture
def clip() -> Clip:
    """A clip of 21 frames of 32x48 with two references."""
    return make_clip()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
