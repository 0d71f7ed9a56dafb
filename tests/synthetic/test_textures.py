"""Textures: shares stay shares, patterns are where they should be, and fade in the distance."""

import numpy as np
import pytest
import torch

from worldstereo.synthetic.textures import TEXTURES, Spots, hashed, joint, noise, stripes

KNOWN_HASHES = [12684050, 9565182]


def spots(footprint: float, seed: int = 0) -> Spots:
    generator = np.random.default_rng(seed)
    u, v, nu, nv, x, y, z = torch.tensor(generator.uniform(-1, 1, (7, 4000)), dtype=torch.float32)
    ones = torch.ones(4000)
    return Spots(
        3 * u, 3 * v, nu, nv, x, y, z, footprint * ones, 0.1 * ones, torch.full((4000,), 5).int()
    )


@pytest.mark.parametrize("name", sorted(TEXTURES))
def test_textures_give_shares(name: str) -> None:
    for footprint in (0.0, 0.01, 2.0):
        first, second, gain = TEXTURES[name](spots(footprint))
        for share in (first, second):
            assert share.shape == (4000,)
            assert share.min() >= -1e-5
            assert share.max() <= 1 + 1e-5
        assert gain.min() > 0
        assert gain.max() < 1.6


@pytest.mark.parametrize("name", ["checker", "striped", "tiles", "bricks", "dots", "wood"])
def test_patterns_fade_in_the_distance(name: str) -> None:
    near, far = TEXTURES[name](spots(0.001)), TEXTURES[name](spots(5.0))
    assert sum(part.std() for part in far) < 0.6 * sum(part.std() for part in near)


def test_hashes_are_even_and_known() -> None:
    x, y = torch.arange(200.0).repeat(200), torch.arange(200.0).repeat_interleave(200)
    salt = torch.zeros(40000, dtype=torch.int32)
    value = hashed(x, y, salt)
    counts = np.histogram(value.numpy(), bins=10, range=(0, 1))[0]
    assert counts.min() > 3600
    assert counts.max() < 4400
    assert not torch.equal(value, hashed(x, y, salt + 1))
    # The same on every machine: these numbers never change.
    column, row = torch.tensor([[1.0, -7.0], [2.0, 3.0]])
    known = (hashed(column, row, salt[:2]) * 2**24).int()
    assert known.tolist() == KNOWN_HASHES


def test_noise_is_smooth_and_meets_its_lattice() -> None:
    salt = torch.zeros(3, dtype=torch.int32)
    x, y = torch.tensor([1.0, 5.0, -2.0]), torch.tensor([0.0, 2.0, 9.0])
    assert torch.equal(noise(x, y, salt), hashed(x, y, salt))
    near = noise(x + 1e-3, y, salt) - noise(x, y, salt)
    assert near.abs().max() < 1e-4


def test_stripes_and_joints_are_where_they_should_be() -> None:
    x, sharp = torch.tensor([0.4, 0.6, 1.4, -1.6]), torch.zeros(4)
    assert stripes(x, sharp).tolist() == [1, 0, 0, 1]
    width = torch.full((4,), 0.2)
    at = torch.tensor([0.05, 0.5, 0.95, 3.0])
    assert joint(at, width, sharp).tolist() == [1, 0, 1, 1]
