"""A clip's noise follows from its seed and its place in the scene."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldstereo.sampling.noise import clip_noise, draw_noise

CPU = torch.device("cpu")
SHAPE = (1, 16, 3, 4, 6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), count=st.integers(1, 6))
def test_noise_of_clip_k_is_draw_k_of_one_run(seed: int, count: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    sequential = [draw_noise(SHAPE, generator, CPU) for _ in range(count)]
    # Alone, and last first: neither the others nor the order matters.
    for draw in reversed(range(count)):
        torch.testing.assert_close(
            clip_noise(seed, draw, SHAPE, CPU), sequential[draw], rtol=0, atol=0
        )


def test_one_run_is_the_published_way_of_drawing() -> None:
    generator = torch.Generator().manual_seed(1024)
    published = [torch.randn(SHAPE, generator=generator, dtype=torch.float32) for _ in range(3)]
    assert torch.equal(clip_noise(1024, 2, SHAPE, CPU), published[2])


def test_noise_is_standard_normal_float32_and_differs_by_seed_and_draw() -> None:
    noise = clip_noise(1, 0, (1, 16, 21, 16, 24), CPU)
    assert noise.dtype == torch.float32
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
    assert not torch.equal(noise, clip_noise(2, 0, noise.shape, CPU))
    assert not torch.equal(noise, clip_noise(1, 1, noise.shape, CPU))


def test_without_a_generator_the_global_one_is_advanced() -> None:
    torch.manual_seed(5)
    first = draw_noise(SHAPE, None, CPU)
    torch.manual_seed(5)
    assert torch.equal(first, torch.randn(SHAPE))
