"""How a worker loads the real engine: precision, options, warm-up, compile cache."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.engine import EngineSpec, load_engine
from worldstereo import WorldStereo
from worldstereo.config import ComputeOptions

SPEC = EngineSpec(
    factory="actors.engine:load_worldstereo",
    source="worldstereo-tiny",
    variant="worldstereo-memory-dmd",
    device="cpu",
    precision="float32",
    torch_threads=1,
    local_files_only=True,
)
CACHE = "TORCHINDUCTOR_CACHE_DIR"


class Loaded:
    """What was asked of ``from_pretrained``, and whether the model was warmed up."""

    def __init__(self, source: str, **asked: Any) -> None:
        self.source, self.asked, self.warmed = source, asked, 0

    def warm_up(self) -> None:
        self.warmed += 1


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WorldStereo, "from_pretrained", Loaded)
    monkeypatch.setenv(CACHE, "set by the user")


def load(spec: EngineSpec) -> Any:
    return load_engine(spec, None)


def test_all_that_the_spec_says_reaches_the_model() -> None:
    options = ComputeOptions(attention="native", fp8=True)
    spec = replace(SPEC, precision="bfloat16", encoder_precision="bfloat16", options=options)
    loaded = load(spec)
    assert loaded.source == "worldstereo-tiny"
    assert loaded.asked == {
        "subfolder": "worldstereo-memory-dmd",
        "local_files_only": True,
        "device": "cpu",
        "dtype": torch.bfloat16,
        "encoder_dtype": torch.bfloat16,
        "options": options,
        "mesh": None,
    }
    assert loaded.warmed == 0
    assert os.environ[CACHE] == "set by the user"


def test_a_compiled_model_is_warmed_up_with_its_cache_where_it_was_asked_for(
    tmp_path: Path,
) -> None:
    compiled = replace(SPEC, options=ComputeOptions(compile=True), compile_cache=tmp_path)
    assert load(compiled).warmed == 1
    assert os.environ[CACHE] == str(tmp_path)
