"""Held-out synthetic scenes through the whole system, scored against their exact truth.

Owns what is measured of each scene and against which baselines. Who generates the clips is the
caller's: a function that is given scene folders and leaves results, as the cluster does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from worldstereo.errors import InputError
from worldstereo.evaluation.cameras import camera_errors
from worldstereo.evaluation.clouds import (
    AUC_PERCENT,
    PERCENT_THRESHOLDS,
    CloudScores,
    cloud_scores,
)
from worldstereo.evaluation.consistency import STRIDE, ClipDepths, consistency
from worldstereo.evaluation.exact_geometry import ExactGeometry, estimator_name
from worldstereo.evaluation.images import image_scores
from worldstereo.evaluation.inpainting import FILLS
from worldstereo.evaluation.report import ClipReport, Failure, Report, SceneReport, make_report
from worldstereo.evaluation.truth import ClipTruth, SceneTruth, World, scene_truth
from worldstereo.evaluation.visibility import DEPTH_TOLERANCE
from worldstereo.formats.ply import read_ply
from worldstereo.formats.results import TrajectoryResult, read_trajectory
from worldstereo.types import Bool, UInt8

# Generates scene folders with a variant: results go to output/<scene>/<view>/<trajectory>.
# Returns why scenes failed, by name; the clips that they have are there all the same.
Generate = Callable[[Sequence[Path], str, Path], Mapping[str, str]]
# A kind of world: its writer makes a scene folder of it in a folder, and returns the scene's.
AnyWorld = TypeVar("AnyWorld", bound=World)
Made = TypeVar("Made")

# Methods of the report that are not generated.
RENDER, EXACT, START_POINTS = "point render", "exact pictures", "points of the start image"
CLOUD = "points.ply"


class SyntheticSettings(BaseModel):
    """What decides the numbers of a run, beside the model and its seeds.

    Attributes:
        variants: in the order of the table.
        scale_map: working sizes of the model.
        nframe: keyframes of a clip.
        align_nframe: frames of each clip that enter the memory.
        thresholds: of the reconstruction, in scene units (metres).
        percents: of the reconstruction, in percent of the true cloud's diagonal.
        auc_percent: end of the range of the area under F1, in the same percent.
        box_margin_percent: our points farther outside the true cloud's box do not count: the
            truth has no sky.
        consistency_stride: every so many-eth frame is compared with every so many-eth.
        depth_tolerance: relative, up to which two depths are one surface's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variants: tuple[str, ...] = Field(min_length=1)
    scale_map: tuple[tuple[int, int], ...] = Field(min_length=1)
    nframe: int = Field(default=21, ge=4)
    align_nframe: int = Field(default=8, ge=1)
    thresholds: tuple[float, ...] = (0.05, 0.1)
    percents: tuple[float, ...] = PERCENT_THRESHOLDS
    auc_percent: float = Field(default=AUC_PERCENT, gt=0)
    box_margin_percent: float | None = Field(default=AUC_PERCENT, ge=0)
    consistency_stride: int = Field(default=STRIDE, ge=1)
    depth_tolerance: float = Field(default=DEPTH_TOLERANCE, gt=0)


def evaluate_synthetic(
    worlds: Sequence[AnyWorld],
    generate: Generate,
    write_scene: Callable[[AnyWorld, Path], Path],
    settings: SyntheticSettings,
    work: Path,
    *,
    told: Mapping[str, Any] | None = None,
    on_scene: Callable[[str], None] = lambda name: None,
    processes: int = 1,
) -> Report:
    """Make scenes of worlds, have them generated, and score everything.

    Args:
        worlds: held-out worlds.
        generate: generates all scenes with one variant.
        write_scene: makes a world's scene folder.
        settings: what is measured.
        work: an empty folder for scenes and results; the caller removes it.
        told: further JSON values for the report's settings, such as the model's name.
        on_scene: called with each scene's name when it is scored.
        processes: that make and score scenes, each one at a time; 1: this one. With more,
            ``worlds`` and ``write_scene`` are pickled.

    Returns:
        The report; what could not be measured is among its failures.

    Raises:
        FileExistsError: ``work`` has scenes already.
    """
    scenes = work / "scenes"
    scenes.mkdir()
    folders = list(_each(write_scene, processes, worlds, [scenes] * len(worlds)))
    reasons = {}
    for variant in settings.variants:
        reasons[variant] = generate(folders, variant, work / "results" / variant)
    score = partial(_scored, settings=settings, root=work / "results", reasons=reasons)
    reports = []
    for report in _each(score, processes, worlds, folders):
        reports.append(report)
        on_scene(report.name)
    return make_report(
        "synthetic",
        {
            **(told or {}),
            **settings.model_dump(mode="json"),
            "seeds": [world.seed for world in worlds],
            "camera_estimator": estimator_name(),
            "first_frame": "not scored: it is the input",
        },
        methods(settings.variants),
        reports,
        fills=tuple(FILLS),
    )


def methods(variants: Sequence[str]) -> tuple[str, ...]:
    """What is scored, in the order of the tables: the baselines, and these variants."""
    return (RENDER, *FILLS, *variants, START_POINTS, EXACT)


def _each(
    function: Callable[..., Made], processes: int, *arguments: Sequence[Any]
) -> Iterator[Made]:
    """What a function returns for each scene, in order, as soon as it is there."""
    if processes == 1:
        yield from map(function, *arguments)
        return
    # Spawned: a forked process would have this one's threads' locks, but not its threads.
    context = get_context("spawn")
    with ProcessPoolExecutor(processes, context, torch.set_num_threads, (1,)) as pool:
        yield from pool.map(function, *arguments)


def _scored(
    world: World,
    folder: Path,
    *,
    settings: SyntheticSettings,
    root: Path,
    reasons: Mapping[str, Mapping[str, str]],
) -> SceneReport:
    """Everything about one scene, against its truth, which is rendered for it."""
    truth = scene_truth(
        world,
        folder,
        scale_map=settings.scale_map,
        nframe=settings.nframe,
        align_nframe=settings.align_nframe,
    )
    results = _Results(truth, settings, root, reasons)
    return _scene_report(world, truth, results, settings)


class _Results:
    """What every variant left of one scene, and what is missing."""

    def __init__(
        self,
        truth: SceneTruth,
        settings: SyntheticSettings,
        root: Path,
        reasons: Mapping[str, Mapping[str, str]],
    ) -> None:
        self.clips: dict[str, dict[str, TrajectoryResult]] = {}
        self.clouds: dict[str, Path] = {}
        self.failures: list[Failure] = []
        for variant in settings.variants:
            reason = reasons[variant].get(truth.name, "no result")
            folder = root / variant / truth.name
            self.clips[variant] = {}
            for clip in truth.clips.values():
                self._read(variant, folder, clip, reason, truth.name)
            cloud = folder / CLOUD
            if cloud.is_file():
                self.clouds[variant] = cloud
            elif any((root / variant).glob(f"*/{CLOUD}")) or (
                # The clips are there, so it was an output that the scene failed for.
                truth.name in reasons[variant] and len(self.clips[variant]) == len(truth.clips)
            ):
                self.failures.append(
                    Failure(scene=truth.name, method=variant, what=CLOUD, detail=reason)
                )

    def _read(self, variant: str, folder: Path, clip: ClipTruth, reason: str, scene: str) -> None:
        place = folder.joinpath(*clip.id.split("/"))
        try:
            result = read_trajectory(place) if place.is_dir() else None
        except InputError as error:
            result, reason = None, error.what
        if result is not None and result.frames.shape != clip.images.shape:
            shape = list(result.frames.shape)
            result, reason = None, f"frames of shape {shape}, {list(clip.images.shape)} needed"
        if result is None:
            self.failures.append(Failure(scene=scene, method=variant, what=clip.id, detail=reason))
        else:
            self.clips[variant][clip.id] = result

    def references(self, truth: SceneTruth, clip_id: str) -> tuple[tuple[str, ...], str]:
        """Frames that decide a clip's "seen holes", and where they are from.

        One set for all variants, so that they are compared on the same pixels: what the first
        variant with references retrieved, else all candidates of the plan.
        """
        for variant, clips in self.clips.items():
            if clip_id in clips and clips[clip_id].references:
                return tuple(entry.id for entry in clips[clip_id].references), variant
        return truth.plan.trajectory(clip_id).candidates, "plan"


def _scene_report(
    world: World, truth: SceneTruth, results: _Results, settings: SyntheticSettings
) -> SceneReport:
    fills: dict[str, dict[str, UInt8]] = {name: {} for name in (RENDER, *FILLS)}
    clips = []
    for clip_id, clip in truth.clips.items():
        fills[RENDER][clip_id] = clip.render
        for name, fill in FILLS.items():
            fills[name][clip_id] = fill(clip.render, clip.holes)
        made = {name: frames[clip_id] for name, frames in fills.items()}
        for variant, found in results.clips.items():
            if clip_id in found:
                made[variant] = found[clip_id].frames
        references, source = results.references(truth, clip_id)
        seen = truth.seen_holes(clip_id, references)
        clips.append(_clip_report(truth, clip, made, seen, references, source))
    # Not the render itself: its holes are one grey everywhere, which is consistent.
    methods = {
        **{name: frames for name, frames in fills.items() if name != RENDER},
        **{
            variant: {clip_id: result.frames for clip_id, result in found.items()}
            for variant, found in results.clips.items()
        },
        EXACT: {clip_id: clip.images for clip_id, clip in truth.clips.items()},
    }
    return SceneReport(
        name=truth.name,
        seed=world.seed,
        kind=world.kind,
        caption=world.caption,
        median_depth=truth.median_depth,
        clips=tuple(clips),
        consistency=consistency(
            [
                ClipDepths(clip.id, clip.cameras, clip.depths, clip.holes)
                for clip in truth.clips.values()
            ],
            methods,
            stride=settings.consistency_stride,
            tolerance=settings.depth_tolerance,
        ),
        reconstruction=_reconstruction(world, truth, results, settings),
        failures=tuple(results.failures),
    )


def _clip_report(
    truth: SceneTruth,
    clip: ClipTruth,
    made: Mapping[str, UInt8],
    seen: Bool,
    references: tuple[str, ...],
    source: str,
) -> ClipReport:
    """Pictures and cameras of one clip; the trivial fills have the render's cameras."""
    holes = clip.holes[1:]
    masks = {
        "overall": np.ones_like(holes),
        "covered": ~holes,
        "holes": holes,
        "seen holes": seen[1:],
    }
    geometry = ExactGeometry(clip.images, clip.depths, clip.cameras)
    return ClipReport(
        id=clip.id,
        frames=len(clip.images),
        hole_share=float(holes.mean()),
        seen_hole_share=float(seen[1:].mean()),
        references=references,
        references_from=source,
        images={
            name: image_scores(frames[1:], clip.images[1:], masks) for name, frames in made.items()
        },
        cameras={
            name: camera_errors(
                clip.cameras.camera_from_world,
                geometry.estimate(frames),
                median_depth=truth.median_depth,
            )
            for name, frames in made.items()
            if name not in FILLS
        },
    )


def _reconstruction(
    world: World, truth: SceneTruth, results: _Results, settings: SyntheticSettings
) -> dict[str, CloudScores]:
    """The fused clouds, and the start image's own points, against what the cameras see."""
    if not results.clouds:
        return {}
    true = world.visible_points(truth.every_camera())
    clouds = {
        variant: truth.in_world(read_ply(path).points) for variant, path in results.clouds.items()
    }
    clouds[START_POINTS] = world.visible_points(truth.start).astype(np.float64)
    return {
        name: cloud_scores(
            points,
            true,
            thresholds=settings.thresholds,
            percents=settings.percents,
            auc_percent=settings.auc_percent,
            box_margin_percent=settings.box_margin_percent,
        )
        for name, points in clouds.items()
    }
