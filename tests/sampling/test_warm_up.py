"""The forwards before the first clip: every token count once, every variant."""

import pytest

from worldstereo import WorldStereo
from worldstereo.config import VARIANTS, Variant


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_number_of_tokens_is_run_once(
    variant: Variant, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = WorldStereo.from_pretrained("worldstereo-tiny", subfolder=variant, device="cpu")
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
