"""The forwards before the first clip: every token count once, every variant."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from tests.miniature import miniature
from tests.sampling.clips import make_clip
from worldstereo import WorldStereo
from worldstereo.config import VARIANTS, Variant
from worldstereo.models.parallelize import compile_blocks


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_number_of_tokens_is_run_once(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = WorldStereo.from_pretrained(miniature(), subfolder=variant, device="cpu")
    small = model.config.model_copy(
        update={"nframe": 3, "scale_map": ((32, 64), (64, 32), (48, 48), (32, 32))}
    )
    monkeypatch.setattr(model, "config", small)
    seen = []
    forward = type(model.transformer).forward

    def watched(self, **inputs):
        result = forward(self, **inputs)
        seen.append((tuple(result.shape), "reference_latent" in inputs))
        assert result.isfinite().all()
        return result

    monkeypatch.setattr(type(model.transformer), "forward", watched)
    assert model.warm_up() == [(32, 64), (48, 48), (32, 32)]
    references = variant != "worldstereo-camera"
    assert seen == [
        ((1, 16, 3, 4, 8), references),
        ((1, 16, 3, 6, 6), references),
        ((1, 16, 3, 4, 4), references),
    ]


def test_a_clip_after_it_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    counter = CompileCounter()
    model = WorldStereo.from_pretrained(miniature(), subfolder="worldstereo-memory", device="cpu")
    compile_blocks(model.transformer, backend=counter)
    small = model.config.model_copy(update={"nframe": 3, "scale_map": ((32, 48), (48, 32))})
    monkeypatch.setattr(model, "config", small)
    assert model.warm_up() == [(32, 48)]
    compiled = counter.frame_count
    assert compiled == 3  # blocks with references, the last one, the ControlNet's
    for references, size in ((2, (32, 48)), (1, (48, 32))):
        clip = make_clip(*size, frames=3, references=references)
        model.generate(clip, num_inference_steps=1)
    assert counter.frame_count == compiled
    torch._dynamo.reset()
