"""Several ranks compute what one process computes: latents, frames, and what they hold."""

from datetime import timedelta
from functools import cache

import pytest
import torch
from torch import Tensor
from torch.distributed import HashStore

from tests.parallel import cases
from tests.parallel.cases import Case
from tests.parallel.ranks import on_ranks
from tests.sampling.clips import make_clip
from worldstereo.config import Variant, is_distilled
from worldstereo.errors import ParameterError
from worldstereo.geometry.render import render_points
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.parallel.mesh import ParallelMesh
from worldstereo.sampling.inputs import clip_inputs

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


@pytest.mark.parametrize("size", WORLD_SIZES)
def test_no_rank_does_what_another_does(size: int) -> None:
    """Tokens of a block, passes of a guided step, frames of the VAE: each rank has its share."""
    tokens_of_a_frame = cases.HEIGHT * cases.WIDTH // 16**2
    for case in cases.cases(size):
        frames = cases.FRAMES + case.references
        tokens = frames * tokens_of_a_frame
        passes = cases.STEPS * (1 if is_distilled(case.variant) else 2)
        seen = [rank[case]["seen"] for rank in on_world(size)]
        assert {one["tokens"] for one in seen} == {tokens // case.layout.ulysses}, case
        assert {one["control_tokens"] for one in seen} == {
            cases.FRAMES * tokens_of_a_frame // size
        }, case
        assert {one["passes"] for one in seen} == {passes // case.layout.cfg}, case
        # Render and references are shared out; the start frame and the zero frame, one each, are
        # every rank's own.
        share = -(-cases.FRAMES // size) + -(-case.references // size)
        assert all(share - 2 < one["frames"] <= share + 2 for one in seen), case


def test_compiled_blocks_of_sharded_weights_give_the_same_latents() -> None:
    expected = truth("worldstereo-memory", 3)
    for latents in on_ranks(2, cases.run_compiled):
        assert (latents - expected).abs().max() <= TOLERANCE


def test_a_size_that_the_ranks_cannot_share_is_refused_before_anything_runs() -> None:
    mesh = ParallelMesh(ParallelLayout(ulysses=2), 0, torch.device("cpu"), None)
    model = cases.load("worldstereo-camera")
    model.mesh = mesh
    clip = make_clip(80, 80, 5, 0)
    with pytest.raises(ParameterError, match=r"80x80, 25 tokens.*multiple of 2 squares of 16"):
        model(**vars(clip_inputs(clip, memory=False)), prompt="a room")


@pytest.mark.parametrize("rank", [-1, 2])
def test_a_rank_that_does_not_exist_is_refused(rank: int) -> None:
    with pytest.raises(ParameterError, match="0 to 1 for cfg 1 x ulysses 2"):
        ParallelMesh.join(
            ParallelLayout(ulysses=2), rank=rank, store=HashStore(), device="cpu", timeout_s=1
        )


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


@pytest.mark.parametrize(("device", "number"), [("cuda", 3), ("cuda:1", 1)])
def test_a_gpu_without_a_number_is_the_current_one(
    device: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker names its own; what is asked of torch is looked at, for want of GPUs."""
    asked: dict[str, object] = {}

    def init(backend: str, **named: object) -> None:
        asked.update(named, backend=backend)
        raise InterruptedError

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: asked.update(chosen=chosen))
    monkeypatch.setattr(torch.distributed, "init_process_group", init)
    with pytest.raises(InterruptedError):
        ParallelMesh.join(
            ParallelLayout(ulysses=2), rank=1, store=HashStore(), device=device, timeout_s=7
        )
    expected = torch.device("cuda", number)
    assert asked["chosen"] == asked["device_id"] == expected
    assert asked["backend"] == "cpu:gloo,cuda:nccl"
    assert asked["timeout"] == timedelta(seconds=7)
