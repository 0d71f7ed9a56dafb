"""Training splats from a result folder.

gsplat needs a GPU: here a slow stand-in with its signature draws (gsplat_stand_in.py), so these
tests show the loop, the files and the errors, and benchmarks/splats.py shows gsplat itself.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from tests.reconstruction.gsplat_stand_in import rasterise
from worldstereo.config import SceneParameters
from worldstereo.errors import (
    GenerationCancelled,
    GenerationError,
    LayoutError,
    MediaError,
    MissingDependencyError,
    ParameterError,
)
from worldstereo.evaluation.images import ssim as windowed_ssim
from worldstereo.formats.atomic import is_temporary
from worldstereo.formats.ply import write_ply
from worldstereo.formats.results import write_trajectory
from worldstereo.formats.splat_ply import read_splat_ply
from worldstereo.geometry.camera_path import StartPose
from worldstereo.geometry.trajectories import truck
from worldstereo.memory.plan import ScenePlan, TrajectoryPlan
from worldstereo.memory.stored_plan import PLAN_FILE
from worldstereo.reconstruction import splat_training
from worldstereo.reconstruction.splats import SplatParameters, SplatReport, train_splats
from worldstereo.types import Cameras, Float32, PointCloud, UInt8

HEIGHT, WIDTH, FRAMES = 24, 32, 6
IDS = ("renders/traj_left", "renders/traj_right")
DISC, RADIUS, WALL = 2.5, 0.5, 4.0
POINTS = 200
STEPS = 180


def clips() -> list[tuple[UInt8, Cameras]]:
    """Two clips past a disc before a wall, one to each side."""
    found = []
    for side in (-1, 1):
        path = truck(StartPose(np.eye(4), WALL), 0.15 * side, FRAMES)
        focal = 0.8 * WIDTH
        start = [[focal, 0, WIDTH / 2], [0, focal, HEIGHT / 2], [0, 0, 1]]
        cameras = Cameras(path.camera_from_world, path.intrinsics(start), HEIGHT, WIDTH)
        found.append((seen(cameras)[0], cameras))
    return found


def seen(cameras: Cameras) -> tuple[UInt8, Float32]:
    """Pictures [F, H, W, 3] of cameras that look along z, and the points [F, H, W, 3] in them."""
    u, v = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    images, points = [], []
    for pose, matrix in zip(cameras.camera_from_world, cameras.intrinsics, strict=True):
        ray = np.stack([u, v, np.ones_like(u)], axis=-1) @ np.linalg.inv(matrix).T
        on_disc, on_wall = (depth * ray - pose[:3, 3] for depth in (DISC, WALL))
        hit = np.hypot(on_disc[..., 0], on_disc[..., 1]) < RADIUS
        x, y, _ = on_wall.transpose(2, 0, 1)
        waves = 0.5 + 0.4 * np.stack([np.sin(2 * x), np.cos(1.5 * y), np.sin(x + y)], axis=-1)
        colors = np.where(hit[..., None], [0.9, 0.8, 0.1], waves)
        images.append(np.rint(255 * colors).astype(np.uint8))
        points.append(np.where(hit[..., None], on_disc, on_wall).astype(np.float32))
    return np.stack(images), np.stack(points)


def cloud() -> PointCloud:
    """Some of the points that the first camera sees, of wrong colours."""
    images, points = seen(clips()[0][1][[0]])
    rng = np.random.default_rng(0)
    chosen = rng.permutation(HEIGHT * WIDTH)[:POINTS]
    colors = images.reshape(-1, 3)[chosen] // 2 + rng.integers(0, 128, (POINTS, 3), dtype=np.uint8)
    return PointCloud(points.reshape(-1, 3)[chosen], colors)


def write_scene(folder: Path, *, points: PointCloud | None) -> Path:
    """A result folder before its manifest: plan, clips and fused points."""
    plan = ScenePlan(
        parameters=SceneParameters(),
        nframe=FRAMES,
        start_frames=(),
        trajectories=tuple(planned(*item) for item in enumerate((*IDS, "renders/failed"))),
    )
    folder.mkdir()
    (folder / PLAN_FILE).write_text(plan.model_dump_json())
    for name, (images, cameras) in zip(IDS, clips(), strict=True):
        write_trajectory(folder / name, images, cameras, None)
    if points is not None:
        write_ply(folder / "points.ply", points)
    return folder


def planned(position: int, trajectory_id: str) -> TrajectoryPlan:
    return TrajectoryPlan(
        id=trajectory_id,
        position=position,
        level=0,
        depends_on=(),
        bank_size=0,
        nearest=(),
        reduced=False,
        references=(),
        ref_index=(),
        candidate_scores=(),
        adds=(),
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, int, int]]]:
    """A scene whose splats were trained, and what was told meanwhile."""
    folder = write_scene(tmp_path_factory.mktemp("results") / "room", points=cloud())
    told: list[tuple[str, int, int]] = []
    path = train_splats(
        folder,
        SplatParameters(steps=STEPS),
        device="cpu",
        rasterise=rasterise,
        on_stage=lambda *stage: told.append(stage),
    )
    assert path == folder / "splats.ply"
    return folder, told


def report_of(folder: Path) -> SplatReport:
    return SplatReport.model_validate_json((folder / "splats.json").read_bytes())


def test_training_makes_the_pictures_right(trained: Any, tmp_path: Path) -> None:
    """With a stand-in for gsplat's rasteriser; their number stays, as no strategy changes it."""
    folder, told = trained
    untrained = write_scene(tmp_path / "room", points=cloud())
    train_splats(untrained, SplatParameters(steps=1), device="cpu", rasterise=rasterise)
    before, after = report_of(untrained), report_of(folder)
    assert before.training_psnr is not None
    assert after.training_psnr is not None
    assert after.held_out_psnr is not None
    assert before.training_psnr < 15
    assert after.training_psnr > 22
    assert after.held_out_psnr > 20
    assert (after.training_images, after.held_out_images) == (10, 2)
    assert (after.initial_gaussians, after.gaussians, after.sh_degree) == (POINTS, POINTS, 0)
    assert told == [("splats", step, STEPS) for step in range(1, STEPS + 1)]


def test_the_written_splats_draw_the_same_pictures(trained: Any) -> None:
    """Drawn again from the file by the stand-in, as any reader of such files would."""
    folder, _ = trained
    splats = read_splat_ply(folder / "splats.ply")
    errors = []
    for images, cameras in clips():
        pictures, _, _ = rasterise(
            torch.from_numpy(splats.means),
            torch.from_numpy(splats.rotations),
            torch.from_numpy(splats.log_scales).exp(),
            torch.from_numpy(splats.opacity_logits).sigmoid(),
            torch.from_numpy(splats.sh),
            torch.from_numpy(cameras.camera_from_world),
            torch.from_numpy(cameras.intrinsics),
            WIDTH,
            HEIGHT,
            sh_degree=splats.degree,
            packed=False,
        )
        truth = torch.from_numpy(images).float() / 255
        errors += ((pictures.clamp(0, 1) - truth) ** 2).mean(dim=(1, 2, 3)).tolist()
    psnr = [-10 * math.log10(error) for error in errors]
    held_out = [index % FRAMES == 4 for index in range(len(psnr))]
    found = report_of(folder)
    assert np.mean(np.array(psnr)[held_out]) == pytest.approx(found.held_out_psnr, abs=1e-3)
    assert np.mean(np.array(psnr)[~np.array(held_out)]) == pytest.approx(
        found.training_psnr, abs=1e-3
    )


def test_the_files_are_whole_and_tell_no_times(trained: Any) -> None:
    folder, _ = trained
    assert not [path for path in folder.rglob("*") if is_temporary(path)]
    told = json.loads((folder / "splats.json").read_text())
    assert told["parameters"]["steps"] == STEPS
    assert told["versions"]["torch"] == torch.__version__
    assert not [name for name in told if "second" in name or "time" in name]


def test_the_same_seed_gives_the_same_bytes_on_the_cpu(tmp_path: Path) -> None:
    """The stand-in adds in one order; gsplat on a GPU does not."""
    written = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        folder = write_scene(tmp_path / name, points=cloud())
        torch.manual_seed(len(written))  # what others drew does not matter
        parameters = SplatParameters(steps=6, seed=seed)
        train_splats(folder, parameters, device="cpu", rasterise=rasterise)
        written.append((folder / "splats.ply").read_bytes())
    assert written[0] == written[1] != written[2]


def test_a_scene_without_a_cloud(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "room", points=None)
    with pytest.raises(LayoutError, match=r"points\.ply: there is no cloud .* output points"):
        train_splats(folder, device="cpu", rasterise=rasterise)
    write_ply(folder / "points.ply", cloud()[:3])
    with pytest.raises(MediaError, match="too few points to start from; got 3; allowed: 4"):
        train_splats(folder, device="cpu", rasterise=rasterise)


def test_a_folder_that_is_no_result(tmp_path: Path) -> None:
    write_ply(tmp_path / "points.ply", cloud())
    with pytest.raises(LayoutError, match="no plan"):
        train_splats(tmp_path, device="cpu", rasterise=rasterise)


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    folder = write_scene(tmp_path / "room", points=cloud())
    before = sorted(folder.rglob("*"))
    told: list[int] = []
    with pytest.raises(GenerationCancelled):
        train_splats(
            folder,
            device="cpu",
            rasterise=rasterise,
            on_stage=lambda stage, step, steps: told.append(step),
            stop=lambda: len(told) == 3,
        )
    assert told == [1, 2, 3]
    assert sorted(folder.rglob("*")) == before


def test_splats_that_diverge_are_an_error(tmp_path: Path) -> None:
    def broken(*arguments: Any, **options: Any) -> Any:
        pictures, alphas, info = rasterise(*arguments, **options)
        return pictures * torch.nan, alphas, info

    folder = write_scene(tmp_path / "room", points=cloud())
    with pytest.raises(GenerationError, match="diverged"):
        train_splats(folder, SplatParameters(steps=2), device="cpu", rasterise=broken)
    assert not (folder / "splats.ply").exists()


def test_gsplat_is_asked_for_only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_scene(tmp_path / "room", points=cloud())
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(
        MissingDependencyError, match=r"pip install 'worldstereo-cluster\[splats\]'"
    ):
        train_splats(folder)


def test_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_scene(tmp_path / "room", points=cloud())
    monkeypatch.setitem(sys.modules, "gsplat", SimpleNamespace())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ParameterError, match=r"an NVIDIA GPU; got cuda, .* finds .* CUDA GPUs here"
    ):
        train_splats(folder)


def test_the_first_sizes_are_the_mean_distance_of_three_neighbours() -> None:
    points = np.random.default_rng(3).normal(size=(40, 3)).astype(np.float32)
    some = PointCloud(points, np.full((40, 3), 128, dtype=np.uint8))
    values = splat_training.initial_gaussians(some, 2, "cpu")
    expected = np.sort(cdist(points, points), axis=1)[:, 1:4].mean(axis=1)
    np.testing.assert_allclose(
        values["scales"].exp().detach(), expected[:, None].repeat(3, 1), rtol=1e-5
    )
    assert values["shN"].shape == (40, 8, 3)
    np.testing.assert_allclose(values["opacities"].sigmoid().detach(), 0.1, rtol=1e-6)


def test_points_that_coincide_have_a_size() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), 5, axis=0)
    some = PointCloud(points, np.zeros((15, 3), dtype=np.uint8))
    assert splat_training.initial_gaussians(some, 0, "cpu")["scales"].isfinite().all()


def test_the_extent_is_of_the_cameras_or_of_what_they_see() -> None:
    far = PointCloud(np.full((9, 3), 4, dtype=np.float32), np.zeros((9, 3), dtype=np.uint8))
    still = clips()[0][1][[0, 0]]
    assert splat_training.scene_extent(still, far) == pytest.approx(math.sqrt(48), rel=1e-6)
    poses = np.tile(np.eye(4, dtype=np.float32), (2, 1, 1))
    poses[:, 0, 3] = -20, 20
    apart = Cameras(poses, still.intrinsics, HEIGHT, WIDTH)
    assert splat_training.scene_extent(apart, far) == pytest.approx(22, rel=1e-6)


def test_ssim_agrees_with_the_evaluation() -> None:
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, (20, 26, 1), dtype=np.uint8).repeat(3, -1)
    second = (first // 2 + rng.integers(0, 100, (*first.shape[:2], 1))).astype(np.uint8)
    found = splat_training.ssim(torch.from_numpy(first / 255), torch.from_numpy(second / 255))
    assert float(found) == pytest.approx(windowed_ssim(first, second), abs=1e-6)
    same = torch.from_numpy(first / 255)
    assert float(splat_training.ssim(same, same)) == pytest.approx(1)


class Doubling:
    """A strategy that once adds every Gaussian again, as gsplat's do."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.extent = 0.0

    def initialize_state(self, scene_scale: float) -> dict[str, Any]:
        self.extent = scene_scale
        return {}

    def step_pre_backward(
        self, params: Any, optimizers: Any, state: Any, step: int, info: Any, /
    ) -> None:
        info["means2d"].retain_grad()

    def step_post_backward(
        self, params: Any, optimizers: Any, state: Any, step: int, info: Any, /, *, packed: bool
    ) -> None:
        self.steps.append(step)
        assert info["means2d"].grad.abs().sum() > 0
        if step == 1:
            for name, optimizer in optimizers.items():
                doubled = torch.nn.Parameter(torch.cat([params[name], params[name]]).detach())
                optimizer.state.clear()
                optimizer.param_groups[0]["params"] = [doubled]
                params[name] = doubled


def test_a_strategy_adds_gaussians_until_there_are_enough() -> None:
    images, cameras = clips()[0]
    strategy = Doubling()
    schedule = splat_training.Schedule(steps=5, seed=0, sh_degree=3, max_gaussians=POINTS + 1)
    none = np.zeros(len(images), dtype=np.bool_)
    found = splat_training.train(
        cloud(), images, cameras, none, schedule, rasterise, strategy, device="cpu"
    )
    assert len(found.splats) == 2 * POINTS
    assert strategy.steps == [0, 1]
    assert strategy.extent == found.extent
    assert found.held_out_psnr is None
