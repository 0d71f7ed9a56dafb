"""The canonical order depends on names alone, and is the published one."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from worldstereo.formats.canonical import (
    RECONSTRUCTION_ORDER,
    id_part,
    is_iterative,
    panorama_order,
    reconstruction_order,
    view_kind,
)

GOLDEN = json.loads(
    (Path(__file__).parents[1] / "golden" / "retrieval" / "retrieval.json").read_text()
)["order"]
PAIRS = [tuple(name.split("/")) for name in GOLDEN]


@given(st.permutations(PAIRS))
def test_a_real_scene_has_the_published_order(shuffled: list[tuple[str, str]]) -> None:
    assert ["/".join(pair) for pair in panorama_order(shuffled)] == GOLDEN


@given(st.sets(st.sampled_from(PAIRS)))
def test_a_part_of_a_scene_keeps_the_order_of_the_whole(part: set[tuple[str, str]]) -> None:
    assert panorama_order(part) == [pair for pair in PAIRS if pair in part]


def test_names_without_a_place_are_left_out() -> None:
    assert (
        panorama_order([("view0", "traj3"), ("sofa_0", "traj0"), ("reconstruct_0", "traj2")]) == []
    )
    assert panorama_order([("target_a", "traj7"), ("wonder_a", "x")]) == [
        ("target_a", "traj7"),
        ("wonder_a", "x"),
    ]


@given(st.permutations([*RECONSTRUCTION_ORDER, "traj_a", "zoom"]))
def test_reconstruction_puts_the_published_four_first(shuffled: list[str]) -> None:
    assert [*reconstruction_order(shuffled)] == [*RECONSTRUCTION_ORDER, "traj_a", "zoom"]


def test_kinds() -> None:
    assert [view_kind(view) for view in ("view12", "target_x", "pano_bank")] == [
        "view",
        "target",
        None,
    ]
    assert is_iterative("reconstruct_3", "traj1")
    assert not is_iterative("reconstruct_3", "traj0")
    assert not is_iterative("target_3", "traj1")
    assert id_part("target_exit-sign_1") == "target_exit_sign_1"
