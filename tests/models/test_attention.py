"""Attention over target and references against a slow twin, and the laws of rotary positions."""

import math

import torch
from diffusers.models.transformers.transformer_wan import WanAttention, WanRotaryPosEmbed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.golden import recipe
from worldstereo.models.attention import Rotary, RotaryPositions, SelfAttentionProcessor, rotate

# Float32 sums in another order than the twin's float64.
TWIN_TOLERANCE = 1e-5
HEADS, HEAD_SIZE = 2, 12

sizes = st.integers(2, 9)  # an odd one is cut, as the patches are


@st.composite
def grids(draw: st.DrawFn) -> tuple[int, int, int, list[int]]:
    """Frames, latent rows, latent columns, positions of the references."""
    frames = draw(st.integers(2, 4))
    index = draw(st.lists(st.integers(0, frames - 2), min_size=1, max_size=3))
    return frames, draw(sizes), draw(sizes), index


def turned_slowly(x: Tensor, place: tuple[int, int, int]) -> Tensor:
    """One head's channels [HEAD_SIZE] of the token at frame, row, column: pairs as complex
    numbers, turned by position x 10000^(-2i/d) on each axis's share of the channels."""
    spatial = 2 * (HEAD_SIZE // 6)
    shares = (HEAD_SIZE - 2 * spatial, spatial, spatial)
    angles = [
        position * 10_000 ** (-2 * i / share)
        for position, share in zip(place, shares, strict=True)
        for i in range(share // 2)
    ]
    turns = torch.polar(torch.ones(len(angles), dtype=torch.float64), torch.tensor(angles).double())
    return torch.view_as_real(torch.view_as_complex(x.double().view(-1, 2)) * turns).flatten()


def attend_slowly(attn: WanAttention, tokens: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
    """Self-attention of [N, width] tokens at their places, one head and one query at a time."""

    def normed(values: Tensor, norm: torch.nn.RMSNorm) -> Tensor:
        squares = values.double().pow(2).mean(-1, keepdim=True)
        return values.double() / (squares + 1e-6).sqrt() * norm.weight.double()

    query = normed(attn.to_q(tokens), attn.norm_q).view(len(tokens), HEADS, HEAD_SIZE)
    key = normed(attn.to_k(tokens), attn.norm_k).view(len(tokens), HEADS, HEAD_SIZE)
    value = attn.to_v(tokens).double().view(len(tokens), HEADS, HEAD_SIZE)
    mixed = torch.zeros(len(tokens), HEADS, HEAD_SIZE, dtype=torch.float64)
    for head in range(HEADS):
        keys = torch.stack([turned_slowly(key[n, head], place) for n, place in enumerate(places)])
        for n, place in enumerate(places):
            scores = keys @ turned_slowly(query[n, head], place) / math.sqrt(HEAD_SIZE)
            mixed[n, head] = scores.softmax(0) @ value[:, head]
    return attn.to_out[0](mixed.flatten(1).float())


def places_of(
    frames: int, height: int, width: int, index: list[int]
) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Token places of the target and of the references, which lie to its right."""
    rows, columns = height // 2, width // 2
    target = [(f, y, x) for f in range(frames) for y in range(rows) for x in range(columns)]
    reference = [
        (i + 1, y, columns + x) for i in index for y in range(rows) for x in range(columns)
    ]
    return target, reference


def attention() -> WanAttention:
    attn = WanAttention(
        dim=24, heads=HEADS, dim_head=HEAD_SIZE, eps=1e-6, processor=SelfAttentionProcessor()
    )
    return recipe.fill_(attn).eval()


def rope() -> RotaryPositions:
    return RotaryPositions(HEAD_SIZE, (1, 2, 2), 64)


@given(grids())
@settings(max_examples=10, deadline=None)
@torch.no_grad()
def test_attention_over_both_streams_equals_the_slow_twin(
    grid: tuple[int, int, int, list[int]],
) -> None:
    frames, height, width, index = grid
    attn = attention()
    target_places, reference_places = places_of(frames, height, width, index)
    target = recipe.gaussian("target", (1, len(target_places), 24))
    reference = recipe.gaussian("reference", (1, len(reference_places), 24))
    tables = rope()(frames, height, width, index)
    rotary = tuple(torch.cat(tables[i::2], dim=1) for i in range(2))
    both = torch.cat([target, reference], dim=1)
    kept = attn(both, rotary_emb=rotary)
    expected = attend_slowly(
        attn, torch.cat([target[0], reference[0]]), target_places + reference_places
    )
    assert torch.allclose(kept[0], expected, atol=TWIN_TOLERANCE)
    # References that are only looked at leave the target's output as it is.
    seen = attn(both, rotary_emb=rotary, queries=target.shape[1])
    assert torch.allclose(seen, kept[:, : target.shape[1]], atol=1e-6)


@given(grids())
@settings(max_examples=25, deadline=None)
def test_the_target_keeps_its_place_beside_references(
    grid: tuple[int, int, int, list[int]],
) -> None:
    frames, height, width, index = grid
    positions = rope()
    alone = positions(frames, height, width)
    beside = positions(frames, height, width, index)
    assert torch.equal(beside[0], alone[0])
    assert torch.equal(beside[1], alone[1])
    # The references take the right half of a grid that is twice as wide.
    columns, rows = width // 2, height // 2
    wide = positions(frames, height, 4 * columns)
    for table, double in zip(beside[2:], wide, strict=True):
        picked = table.view(len(index), rows, columns, HEAD_SIZE)
        by_place = double.view(frames, rows, 2 * columns, HEAD_SIZE)
        for r, i in enumerate(index):
            assert torch.equal(picked[r], by_place[i + 1, :, columns:])


def test_the_target_table_is_diffusers_own() -> None:
    theirs = WanRotaryPosEmbed(HEAD_SIZE, (1, 2, 2), 64)(torch.empty(1, 36, 3, 4, 6))
    cos, sin = rope()(3, 4, 6)
    assert torch.equal(cos, theirs[0])
    assert torch.equal(sin[..., 1::2], theirs[1][..., 1::2])
    assert torch.equal(sin[..., 0::2], -theirs[1][..., 0::2])


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 20))
@settings(max_examples=25, deadline=None)
def test_scores_depend_on_the_distance_alone(first: int, second: int, shift: int) -> None:
    table = rope()(1, 2, 2 * 64)

    def at(column: int) -> Rotary:
        return table[0][:, column : column + 1], table[1][:, column : column + 1]

    query, key = (recipe.gaussian(name, (1, 1, 1, HEAD_SIZE)) for name in ("query", "key"))
    near = (rotate(query, at(first)) * rotate(key, at(second))).sum()
    far = (rotate(query, at(first + shift)) * rotate(key, at(second + shift))).sum()
    assert torch.allclose(near, far, atol=1e-4)
    assert torch.allclose(rotate(query, at(first)).norm(), query.norm(), atol=1e-5)


def test_tables_survive_casting_and_the_meta_device() -> None:
    expected = rope()
    cast = rope().to(torch.bfloat16)
    with torch.device("meta"):
        meta = RotaryPositions(HEAD_SIZE, (1, 2, 2), 64)
    assert meta.freqs_cos.is_meta
    built = meta.to(torch.bfloat16).to_empty(device="cpu")
    for positions in (cast, rope().half(), built):
        assert torch.equal(positions.freqs_cos, expected.freqs_cos)
        assert torch.equal(positions.freqs_sin, expected.freqs_sin)
    assert "freqs_cos" not in expected.state_dict()


def test_a_bfloat16_query_is_turned_in_float32() -> None:
    table = rope()(2, 2, 2)[:2]
    x = recipe.gaussian("x", (1, 2, HEADS, HEAD_SIZE)).bfloat16()
    turned = rotate(x, (table[0], table[1]))
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), (table[0], table[1])).bfloat16())


def test_processors_have_the_attribute_that_diffusers_sets() -> None:
    assert attention().processor._attention_backend is None
