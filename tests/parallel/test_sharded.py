"""Several ranks compute what one process computes: latents, frames, and what they hold."""

from functools import cache

import pytest
import torch
from torch import Tensor

from tests.parallel import cases
from tests.parallel.cases import Case
from tests.parallel.ranks import on_ranks
from worldstereo.config import Variant
from worldstereo.geometry.render import render_points

# In one process where the suite runs in several: what the ranks returned is kept in it.
pytestmark = pytest.mark.xdist_group("ranks")

TOLERANCE = 1e-5
WORLD_SIZES = (2, 4)


@cache
def on_world(world_size: int) -> list[dict[Case, dict]]:
    return on_ranks(world_size, cases.run_cases, cases.cases(world_size))


@cache
def truth(variant: Variant, references: int) -> Tensor:
    return cases.latents_of(cases.load(variant), references)


@pytest.mark.parametrize(
    "case", [case for size in WORLD_SIZES for case in cases.cases(size)], ids=str
)
def test_latents_are_those_of_one_process(case: Case) -> None:
    expected = truth(case.variant, case.references)
    results = [rank[case] for rank in on_world(case.layout.world_size)]
    for result in results:
        assert result["latents"].shape == expected.shape
        assert (result["latents"] - expected).abs().max() <= TOLERANCE
        # Each rank goes on from the same numbers, whatever it seeded its noise with.
        assert torch.equal(result["latents"], results[0]["latents"])


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_sharded_weights_are_held_in_parts(size: int) -> None:
    for case in cases.cases(size):
        whole = next(
            other
            for other in cases.cases(size)
            if other
            == Case(case.variant, case.references, case.layout.model_copy(update={"fsdp": False}))
        )
        for rank in on_world(size):
            share = rank[case]["held"] / rank[whole]["held"]
            text_share = rank[case]["text_held"] / rank[whole]["text_held"]
            expected = 1 / size if case.layout.fsdp else 1
            assert share == pytest.approx(expected, rel=0.1), case
            assert text_share == pytest.approx(expected, rel=0.1), case


def test_frames_are_encoded_decoded_and_rendered_in_any_number() -> None:
    """One frame for two ranks, even and uneven counts."""
    counts = [1, 2, 5, 8]
    vae = cases.load("worldstereo-camera").vae
    first, second = on_ranks(2, cases.run_frames, counts)
    for count in counts:
        latents = vae.encode(cases.video(count))
        frames = vae.decode(latents)
        render = render_points(*cases.cloud(count))
        for mine, others in zip(first[count], second[count], strict=True):
            assert torch.equal(mine, others)
        latents_of_ranks, frames_of_ranks, *render_of_ranks = first[count]
        assert (latents_of_ranks - latents).abs().max() <= TOLERANCE
        assert (frames_of_ranks - frames).abs().max() <= TOLERANCE
        for part, name in zip(render_of_ranks, ("rgb", "hole_mask", "nearest_z"), strict=True):
            assert torch.equal(part, getattr(render, name))


def test_the_leader_s_stop_ends_the_clip_on_every_rank_in_the_same_step() -> None:
    """And what it asks the others is nothing: they go on together with the next clip."""
    leader, follower = on_ranks(2, cases.run_stopped)
    assert leader["ended"] == "GenerationCancelled"
    assert follower["ended"] == "LeaderStopped"
    told = [("encode", 0), ("denoise", 0), ("denoise", 1), ("denoise", 2)]
    assert leader["seen"] == told
    assert follower["seen"] == []
    assert (leader["frames"] == follower["frames"]).all()
    assert leader["frames"].std() > 10
