"""What an evaluation says: one JSON file and one table, the same for the same inputs.

Owns the report's schema, the means and the plain-text tables. No time, host or path is in a
report; numbers are rounded to six decimals.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from operator import attrgetter
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from worldstereo.evaluation.cameras import CameraErrors, MeanAndSum
from worldstereo.evaluation.clouds import CloudScores, Given, harmonic_mean
from worldstereo.evaluation.consistency import Consistency, mean_of
from worldstereo.evaluation.images import ImageScores, pooled

SCHEMA_VERSION = 1
DECIMALS = 6
PACKAGES = ("worldstereo-cluster", "evo", "numpy", "pycolmap", "scipy", "torch")


class Record(BaseModel):
    """Base of the report's parts."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Failure(Record):
    """Something that should have been measured and was not there."""

    scene: str
    method: str
    what: str
    detail: str


class ClipReport(Record):
    """One clip; the keys of the mappings are methods.

    Attributes:
        id: ``view/name``.
        frames: F; frame 0, which is the input, counts in no picture metric.
        hole_share: of the pixels behind frame 0; null where the render is not known.
        seen_hole_share: of the same pixels: holes that a reference frame sees.
        references: ids of the frames that this is decided by.
        references_from: the variant whose retrieved frames they are, or ``plan``.
        images: for each method, the scores over each mask.
        cameras: for each method.
    """

    id: str
    frames: int
    hole_share: float | None = None
    seen_hole_share: float | None = None
    references: tuple[str, ...] = ()
    references_from: str | None = None
    images: dict[str, dict[str, ImageScores]] = {}
    cameras: dict[str, CameraErrors] = {}


class SceneReport(Record):
    """One scene; the keys of the mappings are methods."""

    name: str
    seed: int | None = None
    kind: str | None = None
    caption: str | None = None
    median_depth: float | None = None
    clips: tuple[ClipReport, ...]
    consistency: dict[str, Consistency] = {}
    reconstruction: dict[str, CloudScores] = {}
    failures: tuple[Failure, ...] = ()


class CloudMeans(Record):
    """Reconstruction at one threshold, over scenes.

    Attributes:
        given: what ``threshold`` is in: scene units, or percent of each true cloud's diagonal.
        precision, recall: means over the scenes.
        f1: mean of the scenes' F1.
        f1_of_means: harmonic mean of the two means: another number.
    """

    given: Given
    threshold: float
    precision: float
    recall: float
    f1: float
    f1_of_means: float


class MethodMeans(Record):
    """Means over scenes of one method's means over each scene's clips.

    Attributes:
        psnr, ssim: for each mask, means over scenes of the scores over all pixels of a scene's
            clips that the mask names.
        scenes, clips: how many have a value of this method at all.
        failures: what was missing, by the list of failures.
        camera_frames, camera_failed_frames: frames in which a pose was looked for, and those
            without one; the means below leave them out.
        camera_clips, camera_failed_clips: the same of whole clips.
        auc: of F1.
    """

    scenes: int
    clips: int
    failures: int
    psnr: dict[str, float | None] = {}
    ssim: dict[str, float | None] = {}
    camera_clips: int = 0
    camera_failed_clips: int = 0
    camera_frames: int = 0
    camera_failed_frames: int = 0
    rotation_mean_deg: float | None = None
    rotation_sum_deg: float | None = None
    translation_self_normalised_mean: float | None = None
    translation_self_normalised_sum: float | None = None
    translation_sim3_mean: float | None = None
    translation_sim3_sum: float | None = None
    translation_metric_mean: float | None = None
    translation_metric_sum: float | None = None
    ate_sim3: float | None = None
    ate_sim3_median_depths: float | None = None
    rpe_translation: float | None = None
    rpe_rotation_deg: float | None = None
    consistency_psnr: float | None = None
    consistency_psnr_on_holes: float | None = None
    reconstruction: tuple[CloudMeans, ...] = ()
    auc: float | None = None


class Report(Record):
    """A whole evaluation.

    Attributes:
        kind: ``synthetic`` (held-out scenes whose truth is known) or ``results`` (any folder).
        settings: everything that decides what was measured, and how.
        versions: of the libraries that measured.
        methods: in the order of the table.
        best_inpainting: the trivial in-painting with the highest PSNR on holes, chosen among
            all of them after the fact, that is in their favour.
    """

    schema_version: int = SCHEMA_VERSION
    kind: Literal["synthetic", "results"]
    settings: dict[str, Any]
    versions: dict[str, str]
    methods: tuple[str, ...]
    best_inpainting: str | None = None
    means: dict[str, MethodMeans]
    failures: tuple[Failure, ...]
    scenes: tuple[SceneReport, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values, floats rounded."""
        content: dict[str, Any] = _rounded(self.model_dump(mode="json"))
        return content


def make_report(
    kind: Literal["synthetic", "results"],
    settings: Mapping[str, Any],
    methods: Sequence[str],
    scenes: Sequence[SceneReport],
    *,
    fills: Sequence[str] = (),
) -> Report:
    """Put scenes together.

    Args:
        kind: what was evaluated.
        settings: JSON values.
        methods: in the order of the table.
        scenes: their reports.
        fills: those of the methods that are trivial in-paintings.
    """
    failures = tuple(failure for scene in scenes for failure in scene.failures)
    means = {method: method_means(method, scenes) for method in methods}
    on_holes = {fill: means[fill].psnr.get("holes") for fill in fills}
    known = {fill: value for fill, value in on_holes.items() if value is not None}
    return Report(
        kind=kind,
        settings=dict(settings),
        versions={name: _version(name) for name in PACKAGES},
        methods=tuple(methods),
        best_inpainting=max(known, key=lambda fill: known[fill]) if known else None,
        means=means,
        failures=failures,
        scenes=tuple(scenes),
    )


def method_means(method: str, scenes: Sequence[SceneReport]) -> MethodMeans:
    """Means over the scenes of one method; each scene counts the same."""
    images = [[clip.images.get(method) for clip in scene.clips] for scene in scenes]
    cameras = [[clip.cameras.get(method) for clip in scene.clips] for scene in scenes]
    looked_for = [errors for scene in cameras for errors in scene if errors is not None]
    clouds = [scene.reconstruction[method] for scene in scenes if method in scene.reconstruction]
    consistent = [scene.consistency[method] for scene in scenes if method in scene.consistency]
    masks = dict.fromkeys(
        mask for scene in images for scores in scene if scores is not None for mask in scores
    )
    clips = [
        (image is not None) or (camera is not None)
        for pair in zip(images, cameras, strict=True)
        for image, camera in zip(*pair, strict=True)
    ]

    pictures = {
        mask: [pooled([scores[mask] for scores in scene if scores is not None]) for scene in images]
        for mask in masks
    }
    return MethodMeans(
        scenes=sum(
            any(scores is not None for scores in [*shown, *moved])
            for shown, moved in zip(images, cameras, strict=True)
        ),
        clips=sum(clips),
        failures=sum(f.method == method for scene in scenes for f in scene.failures),
        psnr={mask: mean_of([scene.psnr for scene in found]) for mask, found in pictures.items()},
        ssim={mask: mean_of([scene.ssim for scene in found]) for mask, found in pictures.items()},
        camera_clips=len(looked_for),
        camera_failed_clips=sum(errors.failed for errors in looked_for),
        camera_frames=sum(errors.frames for errors in looked_for),
        camera_failed_frames=sum(len(errors.failed_frames) for errors in looked_for),
        **_camera_means(cameras),
        consistency_psnr=mean_of([scores.psnr for scores in consistent]),
        consistency_psnr_on_holes=mean_of([scores.psnr_on_holes for scores in consistent]),
        reconstruction=_cloud_means(clouds),
        auc=mean_of([scores.auc for scores in clouds]),
    )


def _scene_mean(scenes: Iterable[Sequence[Any]], value: Callable[[Any], Any]) -> float | None:
    """Mean over scenes of the means over the clips that have the value."""
    return mean_of([mean_of([value(c) for c in clips if c is not None]) for clips in scenes])


def _camera_means(cameras: list[list[CameraErrors | None]]) -> dict[str, float | None]:
    means: dict[str, float | None] = {}
    for field in ("rotation_deg", "translation_self_normalised", "translation_sim3"):
        means |= _both(cameras, field)
    means |= _both(cameras, "translation_metric")
    for field in ("ate_sim3", "ate_sim3_median_depths", "rpe_translation", "rpe_rotation_deg"):
        means[field] = _scene_mean(cameras, attrgetter(field))
    return means


def _both(cameras: list[list[CameraErrors | None]], field: str) -> dict[str, float | None]:
    name, unit = (field[: -len("_deg")], "_deg") if field.endswith("_deg") else (field, "")
    pairs: list[list[MeanAndSum | None]] = [
        [None if errors is None else getattr(errors, field) for errors in scene]
        for scene in cameras
    ]
    return {
        f"{name}_{which}{unit}": _scene_mean(pairs, attrgetter(which)) for which in ("mean", "sum")
    }


def _cloud_means(clouds: Sequence[CloudScores]) -> tuple[CloudMeans, ...]:
    rows = []
    for scores in zip(*(cloud.at for cloud in clouds), strict=True):
        first = scores[0]
        precision = sum(s.precision for s in scores) / len(scores)
        recall = sum(s.recall for s in scores) / len(scores)
        rows.append(
            CloudMeans(
                given=first.given,
                threshold=first.threshold
                if first.given == "scene units"
                else first.percent_of_diagonal,
                precision=precision,
                recall=recall,
                f1=sum(s.f1 for s in scores) / len(scores),
                f1_of_means=harmonic_mean(precision, recall),
            )
        )
    return tuple(rows)


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
