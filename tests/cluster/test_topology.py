"""Replicas and ranks: known answers, and laws against a search of everything."""

from collections.abc import Callable, Sequence
from itertools import groupby, product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.footprint import Footprint
from cluster.topology import (
    GIB,
    USABLE,
    Choice,
    Hardware,
    Prefer,
    choose_layout,
    divided,
    fits_one_node,
    order_ranks,
    places,
)
from tests.cluster.full_size import BACKBONE, CONFIG, DISTILLED, GUIDED, full_size, layout
from worldstereo.config import VARIANTS, Variant, is_distilled
from worldstereo.errors import ParameterError
from worldstereo.parallel.layout import ParallelLayout, check_layout, ulysses_degrees

# About what torch reports of an A100 of 40 GB, an RTX A6000, an H100 and an H200.
A100, A6000, H100, H200 = (int(size * GIB) for size in (39.4, 47.4, 79.1, 139.8))


def light(variant: Variant) -> Footprint:
    """With encoders in bfloat16 and the condition mode that takes less memory."""
    return full_size(variant, encoders=2, latent_cond_mode="first_frame_only")


def chosen(
    nodes: Sequence[int],
    gpu_bytes: int,
    queued: int,
    variant: Variant = DISTILLED,
    prefer: Prefer = "throughput",
    degrees: Sequence[int] = (1, 2, 4),
    footprint: Footprint | None = None,
) -> Choice:
    hardware = Hardware(tuple(nodes), gpu_bytes)
    needed = footprint or full_size(variant)
    return choose_layout(hardware, needed, variant, degrees, queued=queued, prefer=prefer)


# Known answers


Asked = tuple[tuple[int, ...], int, int, Variant, Prefer]


@pytest.mark.parametrize(
    ("asked", "replicas", "ranks"),
    [
        # Replicas come first.
        (((8,), H200, 33, DISTILLED, "throughput"), 8, layout()),
        (((8,), H200, 33, GUIDED, "throughput"), 8, layout()),
        (((8,), H100, 33, GUIDED, "throughput"), 8, layout()),
        (((3,), H200, 33, GUIDED, "throughput"), 3, layout()),
        (((1, 1), H200, 33, GUIDED, "throughput"), 2, layout()),
        # More GPUs than clips: cfg before ulysses, and no more ranks than the model allows.
        (((8,), H200, 1, GUIDED, "throughput"), 1, layout(2, 4)),
        (((8,), H200, 1, DISTILLED, "throughput"), 1, layout(1, 4)),
        (((2,), H200, 1, GUIDED, "throughput"), 1, layout(2, 1)),
        (((3,), H200, 1, GUIDED, "throughput"), 1, layout(2, 1)),
        (((3,), H200, 1, DISTILLED, "throughput"), 1, layout(1, 2)),
        (((8,), H200, 4, GUIDED, "throughput"), 4, layout(2, 1)),
        (((8,), H200, 3, DISTILLED, "throughput"), 3, layout(1, 2)),
        (((8,), H200, 5, DISTILLED, "throughput"), 5, layout()),
        # Latency first, and replicas of what is left.
        (((8,), H200, 33, GUIDED, "latency"), 1, layout(2, 4)),
        (((8,), H200, 33, DISTILLED, "latency"), 2, layout(1, 4)),
        (((1, 1), H200, 33, GUIDED, "latency"), 2, layout()),
        (((4, 2), H200, 33, GUIDED, "latency"), 1, layout(2, 2)),
        (((1,), H200, 1, GUIDED, "latency"), 1, layout()),
        # Never over nodes where a GPU is enough.
        (((2, 2), H200, 1, GUIDED, "throughput"), 1, layout(2, 1)),
        (((4, 4), H200, 2, GUIDED, "throughput"), 2, layout(2, 2)),
        # No GPU.
        (((), 0, 33, GUIDED, "throughput"), 1, layout()),
        (((0, 0), 0, 1, DISTILLED, "latency"), 1, layout()),
    ],
)
def test_known_choices_at_full_size(asked: Asked, replicas: int, ranks: ParallelLayout) -> None:
    choice = chosen(*asked)
    assert (choice.replicas, choice.layout) == (replicas, ranks), choice.reason


def test_a_model_that_allows_eight_ranks_gets_them() -> None:
    choice = chosen((8,), H200, 1, DISTILLED, degrees=(1, 2, 4, 8))
    assert (choice.replicas, choice.layout) == (1, layout(1, 8))


@pytest.mark.parametrize(
    ("asked", "replicas", "ranks", "one_node"),
    [
        (((2,), A100, 33, DISTILLED), 1, layout(1, 2, fsdp=True), True),
        (((3, 3), A100, 33, DISTILLED), 2, layout(1, 2, fsdp=True), True),
        (((2,), A6000, 33, GUIDED), 1, layout(2, 1, fsdp=True), True),
        (((8,), A6000, 33, GUIDED), 4, layout(2, 1, fsdp=True), True),
        (((8,), A6000, 1, GUIDED), 1, layout(2, 4, fsdp=True), True),
        # Weights are not all: two whole passes are too much for 40 GB, two halves are not.
        (((2,), A100, 33, GUIDED), 1, layout(1, 2, fsdp=True), True),
        # A node with one GPU has too few: two nodes share.
        (((1, 1, 1), A100, 33, DISTILLED), 1, layout(1, 2, fsdp=True), False),
        (((1, 1, 1, 1), A6000, 33, GUIDED), 2, layout(2, 1, fsdp=True), False),
        # As few ranks as fit, even for a single clip: nodes are slow to talk to each other.
        (((1, 1, 1, 1), A6000, 1, GUIDED), 1, layout(2, 1, fsdp=True), False),
    ],
)
def test_weights_that_do_not_fit_one_gpu_are_shared(
    asked: tuple[tuple[int, ...], int, int, Variant],
    replicas: int,
    ranks: ParallelLayout,
    one_node: bool,
) -> None:
    choice = chosen(*asked, footprint=light(asked[-1]))
    assert (choice.replicas, choice.layout) == (replicas, ranks), choice.reason
    assert fits_one_node(choice.layout, asked[0]) is one_node


def test_two_nodes_hold_what_one_cannot() -> None:
    # Four ranks of 48 GB, encoders in float32; a node has two.
    choice = chosen((2, 2), A6000, 33, GUIDED)
    assert (choice.replicas, choice.layout) == (1, layout(2, 2, fsdp=True))
    assert "no node has enough GPUs" in choice.reason
    assert not fits_one_node(choice.layout, (2, 2))


@pytest.mark.parametrize(
    ("nodes", "gpu_bytes", "encoders"),
    [((2, 2), 24 * GIB, 4), ((2, 2), 24 * GIB, 2), ((2,), A100, 4)],
)
def test_what_fits_nowhere_is_refused(
    nodes: tuple[int, ...], gpu_bytes: int, encoders: int
) -> None:
    needed = full_size(DISTILLED, encoders=encoders)
    with pytest.raises(ParameterError) as caught:
        chosen(nodes, gpu_bytes, 33, footprint=needed)
    error = caught.value
    assert "fsdp" in error.what
    assert error.got is not None
    assert error.got.startswith(f"{sum(nodes)} GPUs of ")
    assert error.fix is not None
    assert f"({needed.encoders / GIB:.1f} GiB a GPU) in bfloat16" in error.fix
    assert error.allowed is not None
    least = float(error.allowed.removeprefix("GPUs of ").partition(" ")[0])
    # What the message asks for is enough, and a tenth of a GiB less than that is not.
    assert chosen(nodes, int((least + 0.1) * GIB), 33, footprint=needed).layout.fsdp
    with pytest.raises(ParameterError):
        chosen(nodes, int((least - 0.1) * GIB), 33, footprint=needed)


def test_reasons_say_the_numbers() -> None:
    assert chosen((8,), H200, 33).reason == (
        "8 GPUs of 139.8 GiB on 1 node; one replica needs 63.8 GiB and fits one GPU. "
        "8 replicas of 1 rank for 33 clips: a second replica doubles the clips, "
        "a second rank does not double a clip's speed."
    )
    assert chosen((), 0, 1).reason == "No GPU: one replica of one rank on the CPU."
    left = chosen((3,), H200, 1, GUIDED).reason
    assert left.endswith("1 GPU left over.")
    assert "1 replica of 2 ranks (cfg 2 x ulysses 1) for 1 clip" in left
    assert "left over" not in chosen((8,), H200, 1, GUIDED).reason
    assert "the time of one clip matters" in chosen((8,), H200, 1, prefer="latency").reason
    needed = light(DISTILLED)
    assert "more than one GPU can give: " in chosen((2,), A100, 1, footprint=needed).reason


def test_choices_pass_the_check_of_the_model() -> None:
    assert ulysses_degrees(CONFIG, BACKBONE) == [1, 2, 4]
    for variant, queued in product((GUIDED, DISTILLED), (1, 3, 33)):
        choice = chosen((8,), H200, queued, variant, degrees=ulysses_degrees(CONFIG, BACKBONE))
        check_layout(choice.layout, variant, CONFIG, BACKBONE)


@pytest.mark.parametrize(
    ("where", "refused"),
    [
        ("queued", lambda: chosen((1,), H200, 0)),
        ("degrees", lambda: chosen((1,), H200, 1, degrees=())),
        ("degrees", lambda: chosen((2,), H200, 1, degrees=(2, 4))),
        ("degrees", lambda: chosen((2,), H200, 1, degrees=(0, 1))),
        ("gpus_per_node", lambda: Hardware((2, -1), H200)),
        ("gpu_bytes", lambda: Hardware((2,), 0)),
    ],
)
def test_arguments_out_of_range(where: str, refused: Callable[[], object]) -> None:
    with pytest.raises(ParameterError) as caught:
        refused()
    assert caught.value.where == where
    assert caught.value.got is not None
    assert caught.value.allowed is not None


@pytest.mark.parametrize(
    ("nodes", "parts", "taken", "shares"),
    [
        ((8,), 1, 0, [(8,)]),
        ((8,), 3, 0, [(3,), (3,), (2,)]),
        ((1, 1), 2, 0, [(1,), (1,)]),
        ((8, 8), 2, 0, [(8,), (8,)]),
        ((4, 0, 2), 2, 0, [(3,), (1, 2)]),
        ((8, 2), 1, 1, [(8, 1)]),
        ((8, 2), 1, 3, [(7,)]),
        ((1,), 2, 0, [(1,), ()]),
        ((1,), 1, 2, [()]),
        ((), 2, 1, [(), ()]),
    ],
)
def test_known_divisions(
    nodes: tuple[int, ...], parts: int, taken: int, shares: list[tuple[int, ...]]
) -> None:
    assert divided(nodes, parts, taken=taken) == shares


@pytest.mark.parametrize(
    ("ranks", "nodes", "replicas"),
    [
        (layout(), (3, 2), 5),
        (layout(2, 1), (3, 2), 2),
        (layout(2, 4), (4, 4, 3), 1),  # over nodes, since none has enough
        (layout(2, 1), (1,), 0),
        (layout(2, 1), (), 0),
    ],
)
def test_replicas_that_find_a_place(
    ranks: ParallelLayout, nodes: tuple[int, ...], replicas: int
) -> None:
    assert places(ranks, nodes) == replicas


# Laws, against a search of everything

NODES = st.lists(st.integers(0, 8), max_size=4).map(tuple)
DEGREES = st.sets(st.integers(2, 8)).map(lambda larger: [1, *sorted(larger)])
GIBS = st.integers(0, 48).map(lambda count: count * GIB)
FOOTPRINTS = st.builds(
    Footprint,
    transformer=GIBS,
    gathered=st.integers(0, 4).map(lambda count: count * GIB),
    encoders=GIBS,
    vae=st.just(GIB),
    tokens=GIBS,
    clip=st.just(GIB),
    coding=st.integers(0, 12).map(lambda count: count * GIB),
)


@st.composite
def questions(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "nodes": draw(NODES),
        "gpu_bytes": draw(st.integers(16, 144)) * GIB,
        "queued": draw(st.integers(1, 70)),
        "variant": draw(st.sampled_from(VARIANTS)),
        "prefer": draw(st.sampled_from(["throughput", "latency"])),
        "degrees": draw(DEGREES),
        "footprint": draw(FOOTPRINTS),
    }


def everything_that_fits(asked: dict[str, Any]) -> list[ParallelLayout]:
    """All layouts of at most all GPUs that a rank's memory suffices for."""
    passes = (1,) if is_distilled(asked["variant"]) else (1, 2)
    every = [
        layout(cfg, ulysses, fsdp=fsdp)
        for cfg, ulysses, fsdp in product(passes, asked["degrees"], (False, True))
        if cfg * ulysses <= sum(asked["nodes"]) and not (fsdp and cfg * ulysses == 1)
    ]
    needs = asked["footprint"].rank_bytes
    return [item for item in every if needs(item) <= asked["gpu_bytes"] * USABLE]


@given(nodes=NODES, parts=st.integers(1, 4), taken=st.integers(0, 10))
def test_laws_of_a_division(nodes: tuple[int, ...], parts: int, taken: int) -> None:
    shares = divided(nodes, parts, taken=taken)
    sizes = [sum(share) for share in shares]
    assert sum(sizes) == max(sum(nodes) - taken, 0)
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)
    assert all(count > 0 for share in shares for count in share)


@settings(max_examples=400)
@given(asked=questions())
def test_laws_of_a_choice(asked: dict[str, Any]) -> None:
    nodes, queued = asked["nodes"], asked["queued"]
    fitting = everything_that_fits(asked)
    if sum(nodes) and not fitting:
        with pytest.raises(ParameterError, match="replica needs"):
            chosen(**asked)
        return
    choice = chosen(**asked)
    ranks = choice.layout.world_size
    if not sum(nodes):
        assert (choice.replicas, choice.layout) == (1, layout())
        return
    assert choice.layout in fitting
    assert 1 <= choice.replicas <= queued
    assert choice.replicas * ranks <= sum(nodes)
    local = [item for item in fitting if item.world_size <= max(nodes)]
    if not local:
        assert not fits_one_node(choice.layout, nodes)
        assert ranks == min(item.world_size for item in fitting)
        assert choice.replicas == min(sum(nodes) // ranks, queued)
        return
    assert fits_one_node(choice.layout, nodes)
    room = {item: sum(count // item.world_size for count in nodes) for item in local}
    assert choice.replicas == min(room[choice.layout], queued)
    if asked["prefer"] == "latency":
        assert ranks == max(item.world_size for item in local)
    else:
        assert choice.replicas == min(max(room.values()), queued)
        more = [item for item in local if item.world_size > ranks]
        assert all(room[item] < choice.replicas for item in more)
    alike = [item for item in local if item.world_size == ranks]
    assert choice.layout.fsdp == all(item.fsdp for item in alike)
    same = [item for item in alike if item.fsdp == choice.layout.fsdp]
    assert choice.layout.cfg == max(item.cfg for item in same)
    left = sum(nodes) - choice.replicas * ranks
    assert ("left over" in choice.reason) == (left > 0)


@pytest.mark.parametrize(
    ("bundles", "first", "order"),
    [
        ([], "a", []),
        (["a", "a", "a"], "a", [0, 1, 2]),
        (["a", "b", "a", "b"], "b", [1, 3, 0, 2]),
        (["a", "b", "a", "b"], "head", [0, 2, 1, 3]),  # a tie: first met
        (["a", "b", "b"], "head", [1, 2, 0]),  # more bundles first
        (["a", "b", "b"], "a", [0, 1, 2]),  # but the coordinator's node before all
        (["c", "a", "b", "a", "b", "b"], "c", [0, 2, 4, 5, 1, 3]),
    ],
)
def test_known_orders_of_ranks(bundles: list[str], first: str, order: list[int]) -> None:
    assert order_ranks(bundles, first) == order


@given(bundles=st.lists(st.sampled_from("abcd"), max_size=12), first=st.sampled_from("abcde"))
def test_laws_of_the_order_of_ranks(bundles: list[str], first: str) -> None:
    order = order_ranks(bundles, first)
    assert sorted(order) == list(range(len(bundles)))
    runs = [(node, list(run)) for node, run in groupby(order, key=lambda index: bundles[index])]
    nodes = [node for node, _ in runs]
    assert len(nodes) == len(set(nodes))
    assert all(run == sorted(run) for _, run in runs)
    if first in bundles:
        assert nodes[0] == first
    others = [(-bundles.count(node), bundles.index(node)) for node in nodes if node != first]
    assert others == sorted(others)
