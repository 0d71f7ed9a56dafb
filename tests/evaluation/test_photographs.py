"""Holes that photographs see, by the photographs' own cameras and this world's surfaces."""

from pathlib import Path

import numpy as np
import pytest

from worldstereo.evaluation.truth import SceneTruth, scene_truth
from worldstereo.evaluation.visibility import seen_by_any, views_of
from worldstereo.synthetic import SyntheticWorld, make_world
from worldstereo.synthetic.photographs import photograph_cameras, write_photographed_scene
from worldstereo.synthetic.scene_folder import write_synthetic_scene
from worldstereo.types import Bool

SIZE, FRAMES, ALIGN = (64, 96), 5, 2
COUNT = 4


@pytest.fixture(scope="module")
def world() -> SyntheticWorld:
    return make_world(3, "objects")


def truth_of(world: SyntheticWorld, folder: Path) -> SceneTruth:
    return scene_truth(world, folder, scale_map=[SIZE], nframe=FRAMES, align_nframe=ALIGN)


@pytest.fixture(scope="module")
def plain(world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory) -> SceneTruth:
    place = tmp_path_factory.mktemp("scenes") / "plain"
    return truth_of(world, write_synthetic_scene(world, place, SIZE, frames=FRAMES))


@pytest.fixture(scope="module")
def photographed(world: SyntheticWorld, tmp_path_factory: pytest.TempPathFactory) -> SceneTruth:
    place = tmp_path_factory.mktemp("scenes") / "photographed"
    return truth_of(world, write_photographed_scene(world, place, SIZE, COUNT, frames=FRAMES))


def seen_by_start_frames(truth: SceneTruth, clip_id: str) -> Bool:
    return truth.seen_holes(clip_id, truth.plan.start_frames)


def test_photographs_see_most_of_what_the_start_picture_does_not(
    plain: SceneTruth, photographed: SceneTruth
) -> None:
    for before, ours in zip(plain.clips, photographed.clips, strict=True):
        assert np.array_equal(plain.clips[before].holes, photographed.clips[ours].holes)
        holes = photographed.clips[ours].holes.sum()
        alone = seen_by_start_frames(plain, before)
        seen = seen_by_start_frames(photographed, ours)
        assert not (alone & ~seen).any(), "the start picture is among the frames"
        assert alone.sum() < 0.3 * holes
        assert seen.sum() > 0.6 * holes


def test_each_photograph_sees_with_its_own_camera(
    world: SyntheticWorld, photographed: SceneTruth
) -> None:
    cameras = photograph_cameras(world, COUNT, SIZE, FRAMES)
    exact = views_of(cameras, world.render(cameras).depths)
    clip = photographed.clips["target2/traj_right"]
    found = []
    for number, view in enumerate(exact, start=1):
        seen = photographed.seen_holes(clip.id, [f"pano_bank/{number:04d}"])
        assert (seen == seen_by_any(clip.views, clip.holes, [view])).mean() > 0.999
        found.append(seen.sum())
    assert len(set(found)) == COUNT
    # The one at the end of the path sees most.
    assert found[0] == max(found)


def test_seen_holes_do_not_depend_on_what_photographs_show(
    world: SyntheticWorld, photographed: SceneTruth, tmp_path: Path
) -> None:
    folder = write_photographed_scene(
        world, tmp_path / "scene", SIZE, COUNT, pictures_of=make_world(4), frames=FRAMES
    )
    shuffled = truth_of(world, folder)
    assert shuffled.plan == photographed.plan
    for clip_id in photographed.clips:
        seen = [seen_by_start_frames(truth, clip_id) for truth in (photographed, shuffled)]
        assert np.array_equal(*seen)
