"""Which layouts a model can be run in, and what is said of the others."""

import json

import pytest

from tests.conftest import ROOT
from worldstereo.config import VARIANTS, ModelConfig, Variant
from worldstereo.errors import ParameterError
from worldstereo.models.source import BackboneConfig, bundled_folder, read_backbone_config
from worldstereo.models.source import read_model_config as read_config
from worldstereo.parallel.layout import (
    ParallelLayout,
    check_layout,
    check_world_size,
    shares_control,
    tokens_per_frame,
    ulysses_degrees,
)

SIZES = json.loads((ROOT / "tests/golden/transformer/full_size_keys.json").read_text())
FULL = BackboneConfig.model_validate(SIZES["backbone"])
TINY = bundled_folder("worldstereo-tiny")
DMD: Variant = "worldstereo-memory-dmd"


def full_config(**changed: object) -> ModelConfig:
    fields = {"base_model": "base", "nframe": 21, "latent_cond_mode": "full_vae"}
    return ModelConfig.model_validate(
        fields | {"controlnet_cfg": SIZES["controlnet_cfg"]} | changed
    )


def refused(layout: ParallelLayout, variant: Variant, config: ModelConfig) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        check_layout(layout, variant, config, FULL)
    return caught.value


def test_the_published_sizes_are_split_over_1_2_or_4_ranks() -> None:
    """608 x 608 has 38 x 38 tokens a frame, which 8 does not divide; the heads would allow it."""
    tokens = tokens_per_frame(full_config(), FULL)
    assert tokens[480, 768] == 1440
    assert tokens[608, 608] == 1444
    assert ulysses_degrees(full_config(), FULL) == [1, 2, 4]
    without = full_config(scale_map=((480, 768), (768, 480)))
    assert ulysses_degrees(without, FULL) == [1, 2, 4, 8]
    check_layout(ParallelLayout(ulysses=8), DMD, without, FULL)


def test_heads_of_both_branches_count() -> None:
    odd = full_config(controlnet_cfg=SIZES["controlnet_cfg"] | {"num_heads": 2})
    assert ulysses_degrees(odd, FULL) == [1, 2]
    error = refused(ParallelLayout(ulysses=4), DMD, odd)
    assert "2 heads of the ControlNet cannot be split over 4 ranks" in error.what


@pytest.mark.parametrize(
    ("layout", "variant", "where", "allowed"),
    [
        (ParallelLayout(ulysses=8), DMD, "parallel.ulysses", "1, 2, 4"),
        (ParallelLayout(ulysses=3), "worldstereo-camera", "parallel.ulysses", "1, 2, 4"),
        (ParallelLayout(cfg=2), DMD, "parallel.cfg", "1"),
        (ParallelLayout(fsdp=True), DMD, "parallel.fsdp", "cfg x ulysses > 1"),
    ],
    ids=str,
)
def test_what_is_refused_says_what_would_do(
    layout: ParallelLayout, variant: Variant, where: str, allowed: str
) -> None:
    error = refused(layout, variant, full_config())
    assert error.where == where
    assert error.allowed is not None
    assert allowed in error.allowed


def test_guidance_shares_the_controlnet_where_all_ranks_divide_it() -> None:
    """608 x 608 has 1,444 tokens a frame, which 4 divides and 8 does not."""
    config = full_config()
    assert shares_control(ParallelLayout(cfg=2), config, FULL)
    assert shares_control(ParallelLayout(cfg=2, ulysses=2), config, FULL)
    assert not shares_control(ParallelLayout(cfg=2, ulysses=4), config, FULL)
    assert not shares_control(ParallelLayout(ulysses=4), config, FULL)
    odd = full_config(controlnet_cfg=SIZES["controlnet_cfg"] | {"num_heads": 2})
    assert shares_control(ParallelLayout(cfg=2), odd, FULL)
    assert not shares_control(ParallelLayout(cfg=2, ulysses=2), odd, FULL)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_bundled_model_runs_on_four_ranks(variant: Variant) -> None:
    config = read_config(TINY / variant)
    backbone = read_backbone_config(TINY / "base" / "transformer")
    assert ulysses_degrees(config, backbone) == [1, 2, 4]
    check_layout(ParallelLayout(ulysses=4, fsdp=True), variant, config, backbone)


def test_the_world_is_as_large_as_the_product() -> None:
    layout = ParallelLayout(cfg=2, ulysses=4)
    assert layout.world_size == 8
    check_world_size(layout, 8)
    with pytest.raises(
        ParameterError, match=r"parallel: .*got 4 for cfg 2 x ulysses 4.*allowed: 8"
    ):
        check_world_size(layout, 4)
