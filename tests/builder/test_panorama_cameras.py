"""The cameras of a panorama scene against the published ones, and the rule behind them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldstereo.builder.panorama_cameras import (
    bank_cameras,
    polar_cameras,
    split_steps,
    view_camera,
    view_cameras,
)
from worldstereo.builder.parameters import PANORAMA_TRAJECTORIES
from worldstereo.builder.presets import Dolly, Orbit
from worldstereo.builder.specs import Chain, TrajectorySpec
from worldstereo.geometry.camera_path import StartPose
from worldstereo.types import Cameras

TRAJECTORIES = {str(spec.name): spec for spec in PANORAMA_TRAJECTORIES}


@pytest.fixture(scope="module")
def published(examples_folder: Path) -> Path:
    return sorted((examples_folder / "panorama").iterdir())[0]


def centers(cameras: Cameras) -> np.ndarray:
    return np.linalg.inv(cameras.camera_from_world.astype(np.float64))[:, :3, 3]


def published_path(scene: Path, name: str) -> tuple[np.ndarray, np.ndarray, TrajectorySpec]:
    """Camera centres [21, 3], camera_from_world, and our spec shortened as the file states."""
    content = json.loads((scene / "view0" / name / "camera.json").read_text())
    matrices = np.array(content["extrinsic"])
    spec = TRAJECTORIES[name]
    asked = sum(abs(angle) for angle in spec.extent.values())
    return (
        np.linalg.inv(matrices)[:, :3, 3],
        matrices,
        spec.scaled(content["rotation_deg"] / asked),
    )


def path(spec: TrajectorySpec, pivot_distance: float, frames: int = 21) -> Cameras:
    start = StartPose(view_camera(0).camera_from_world[0], pivot_distance)
    return view_cameras(spec, start, view_camera(0), frames)


def test_the_bank_is_the_published_one(published: Path) -> None:
    table = json.loads((published / "pano_bank" / "cameras.json").read_text())
    ours = bank_cameras()
    assert sorted(table) == [f"{index:04d}" for index in range(len(ours))]
    for index, name in enumerate(sorted(table)):
        assert np.abs(ours.camera_from_world[index] - table[name]["extrinsic"]).max() < 1e-4
        assert np.abs(ours.intrinsics[index] - table[name]["intrinsic"]).max() < 1e-4


def test_the_bank_looks_all_around() -> None:
    cameras = bank_cameras()
    rotations = cameras.camera_from_world[:, :3, :3].astype(np.float64)
    assert np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max() < 1e-6
    assert np.abs(cameras.camera_from_world[:, :3, 3]).max() == 0
    forward, right = rotations[:, 2], rotations[:, 0]
    assert np.abs(right[:, 2]).max() < 1e-9  # no roll
    slopes = forward[:, 2] / np.hypot(forward[:, 0], forward[:, 1])
    assert sorted(np.round(slopes, 6)) == [-0.5] * 9 + [0] * 9 + [0.5] * 9
    turns = np.degrees(np.arctan2(forward[:, 1], -forward[:, 0])).round(3) % 360
    assert {float(turn): int((turns == turn).sum()) for turn in turns} == {
        40.0 * step: 3 for step in range(9)
    }
    # Its views reach 71.6 degrees up and down; the two others show the rest.
    poles = polar_cameras().camera_from_world[:, 2, :3]
    assert np.allclose(poles, [[0, 0, 1], [0, 0, -1]])
    assert np.allclose(np.linalg.det(polar_cameras().camera_from_world), 1)


def test_rising_and_moving_aside_is_the_published_path(published: Path) -> None:
    """Frame by frame: 45 degrees up, then 60 to the right, 9 and 11 of 20 steps."""
    _, matrices, spec = published_path(published, "traj2")
    # At 45 degrees up the centre lies d (1 - cos 45) in front of its start.
    pivot_distance = float(np.linalg.inv(matrices[9])[2, 3] / np.sin(np.pi / 4))
    assert np.abs(path(spec, pivot_distance).camera_from_world - matrices).max() < 1e-3


@pytest.mark.parametrize("name", ["traj0", "traj1"])
def test_orbits_run_on_the_published_circles(published: Path, name: str) -> None:
    """The published orbits end at 51.5 of 53.3 degrees and begin with a step of 6.

    Their pace is not stated anywhere; what is compared is the place that belongs to each angle,
    which theirs leave by up to 0.2 % of the pivot distance, between interpolated frames.
    """
    lift = published_path(published, "traj2")[0][9]
    pivot_distance = float(lift[2] / np.sin(np.pi / 4))
    places, matrices, spec = published_path(published, name)
    assert spec.extent["azimuth"] == pytest.approx(53.33 if name == "traj0" else -53.33, abs=0.01)
    forward = matrices[:, 2, :3]
    angles = np.degrees(np.arctan2(-forward[:, 1], -forward[:, 0]))
    for angle, place in list(zip(angles, places, strict=True))[1:]:
        end = centers(path(Orbit(preset="orbit", azimuth=angle), pivot_distance, 2))[-1]
        assert np.linalg.norm(end - place) < 2e-3 * pivot_distance
    ours = centers(path(spec, pivot_distance))
    assert np.linalg.norm(ours[-1] - places[-1]) < 0.05 * pivot_distance
    # At the published first step of 6 degrees both are exact.
    end = centers(path(Orbit(preset="orbit", azimuth=angles[1]), pivot_distance, 2))[-1]
    assert np.linalg.norm(end - places[1]) < 1e-3


def test_views_start_a_third_of_a_turn_apart() -> None:
    forward = np.stack([view_camera(index).camera_from_world[0, 2, :3] for index in range(3)])
    assert np.allclose(forward[0], [-1, 0, 0])
    assert np.allclose(forward @ forward.T, 1.5 * np.eye(3) - 0.5, atol=1e-6)
    assert forward[1, 1] > 0 > forward[2, 1]  # to the right first
    ours = bank_cameras().camera_from_world
    for index in range(3):
        assert (np.abs(ours - view_camera(index).camera_from_world).max(axis=(1, 2)) == 0).any()


@pytest.mark.parametrize("name", TRAJECTORIES)
@pytest.mark.parametrize("view", range(3))
def test_every_camera_looks_at_the_pivot(name: str, view: int) -> None:
    camera = view_camera(view)
    start = StartPose(camera.camera_from_world[0], 2.5)
    cameras = view_cameras(TRAJECTORIES[name], start, camera, 11)
    assert np.abs(cameras.camera_from_world[0] - camera.camera_from_world[0]).max() < 1e-6
    matrices = cameras.camera_from_world.astype(np.float64)
    seen = matrices[:, :3, :3] @ start.pivot + matrices[:, :3, 3]
    assert np.abs(seen - [0, 0, 2.5]).max() < 1e-5
    right = matrices[0, 0, :3] @ (centers(cameras)[-1] - start.center)
    assert (right > 0) == (name != "traj1")


def test_a_move_of_a_chain_ends_at_a_frame() -> None:
    spec = Chain(
        preset="chain", segments=(Dolly(preset="dolly", amount=0.3), Orbit(preset="orbit"))
    )
    ours = centers(path(spec, 2.0, 6))
    assert np.allclose(ours[4:], [[-0.6, 0, 0]] * 2, atol=1e-6)


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=6).flatmap(
        lambda lengths: st.tuples(st.integers(len(lengths), 40), st.just(lengths))
    )
)
@settings(max_examples=60)
def test_steps_are_split_in_proportion(case: tuple[int, list[float]]) -> None:
    steps, lengths = case
    parts = split_steps(steps, lengths)
    assert sum(parts) == steps
    assert min(parts) >= 1
    if sum(lengths) > 0 and min(lengths) / sum(lengths) * steps > 1.5:
        wanted = steps * np.array(lengths) / sum(lengths)
        assert np.abs(np.array(parts) - wanted).max() <= 1.5
