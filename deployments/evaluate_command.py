"""``worldstereo evaluate``: numbers for a result folder, or for the product on synthetic scenes.

Owns the command's options. How scenes are generated for it is synthetic_evaluation.py's; what is
measured, and how, is ``worldstereo.evaluation``'s.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from worldstereo_client import errors
from worldstereo_client.schemas import DEFAULT_VARIANT

from deployments.command_errors import engine_errors
from deployments.synthetic_evaluation import SyntheticScenes, run_synthetic, say

if TYPE_CHECKING:
    from worldstereo.evaluation.report import Report

# Seeds from here on are never trained on.
HELD_OUT = 10_000

Results = Annotated[
    Path | None,
    typer.Argument(metavar="RESULT_FOLDER", help="Results of a scene, or of one clip."),
]
Synthetic = Annotated[
    int | None,
    typer.Option("--synthetic", min=1, help="Make this many scenes, generate and score them."),
]
SeedStart = Annotated[
    int,
    typer.Option("--seed-start", min=0, help="Seed of the first scene; from 10000 up: held out."),
]
VariantsOption = Annotated[
    list[str] | None,
    typer.Option("--variant", "--model_type", help="Repeat it to compare several."),
]
ModelOption = Annotated[
    str, typer.Option("--model", help="As in run: a bundled or published name, or a YAML file.")
]
ReplicasOption = Annotated[
    int, typer.Option("--replicas", min=1, help="Clips of a variant generated at once.")
]
StepsOption = Annotated[
    int | None,
    typer.Option("--steps", min=1, help="Denoising steps; default: the variant's published count."),
]
GuidanceOption = Annotated[
    float | None,
    typer.Option(
        "--guidance",
        min=1,
        help="Of the variants that have it; 1: none. Default: the model's own scale.",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option("--size", help="HEIGHTxWIDTH of the synthetic scenes; default: the model's."),
]
Photographs = Annotated[
    int,
    typer.Option(
        "--photographs", min=0, help="True pictures in each synthetic scene's memory: 0 to 9."
    ),
]
ShufflePhotographs = Annotated[
    bool,
    typer.Option("--shuffle-photographs", help="The photographs' pictures are of another world."),
]
Keep = Annotated[
    Path | None,
    typer.Option("--keep", help="Leave synthetic scenes and their results in this new folder."),
]
Poses = Annotated[
    Path | None,
    typer.Option("--poses", help="Estimated cameras: COLMAP, transforms.json, npz, TUM, ..."),
]
PosesScaled = Annotated[
    bool, typer.Option("--poses-scaled", help="Lengths in --poses are in the scene's unit.")
]
EstimatorOption = Annotated[
    str | None, typer.Option("--estimator", help="pycolmap: structure from motion on the frames.")
]
TrajectoriesOption = Annotated[
    list[str] | None, typer.Option("--trajectory", help="VIEW/NAME; repeat it; default: all.")
]
GroundTruth = Annotated[
    Path | None, typer.Option("--ground-truth", help="True cloud (PLY) for points.ply.")
]
Cloud = Annotated[
    Path | None, typer.Option("--cloud", help="Our cloud; default: RESULT_FOLDER/points.ply.")
]
GroundTruthCameras = Annotated[
    Path | None,
    typer.Option(
        "--ground-truth-cameras",
        help="The clips' cameras in the true cloud's world: aligns by a similarity.",
    ),
]
Thresholds = Annotated[
    list[float] | None,
    typer.Option("--threshold", help="Distance in scene units for precision and recall; repeat."),
]
Crop = Annotated[
    bool,
    typer.Option("--crop/--no-crop", help="Leave out true points that no frame looks at."),
]
MedianDepth = Annotated[
    float | None, typer.Option("--median-depth", help="Of the start image, in scene units.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the whole report there.")]


def evaluate(
    results: Results = None,
    synthetic: Synthetic = None,
    seed_start: SeedStart = HELD_OUT,
    variant: VariantsOption = None,
    model: ModelOption = "worldstereo-tiny",
    replicas: ReplicasOption = 1,
    steps: StepsOption = None,
    guidance: GuidanceOption = None,
    size: SizeOption = None,
    photographs: Photographs = 0,
    shuffle_photographs: ShufflePhotographs = False,
    keep: Keep = None,
    poses: Poses = None,
    poses_scaled: PosesScaled = False,
    estimator: EstimatorOption = None,
    trajectory: TrajectoriesOption = None,
    ground_truth: GroundTruth = None,
    cloud: Cloud = None,
    ground_truth_cameras: GroundTruthCameras = None,
    threshold: Thresholds = None,
    crop: Crop = True,
    median_depth: MedianDepth = None,
    json_file: JsonFile = None,
) -> None:
    """Measure results, or the whole system on synthetic scenes (--synthetic N).

    Every metric is defined in docs/evaluation.md. The table goes to standard output.
    """
    scenes = SyntheticScenes(photographs, shuffle_photographs)
    check_mode(results, synthetic, poses, estimator, ground_truth)
    check_scenes(synthetic, scenes, keep)
    with engine_errors():
        if synthetic is not None:
            report = run_synthetic(
                range(seed_start, seed_start + synthetic),
                tuple(variant or (DEFAULT_VARIANT,)),
                Console(stderr=True),
                model=model,
                replicas=replicas,
                steps=steps,
                guidance=guidance,
                size=size,
                scenes=scenes,
                keep=keep,
            )
        else:
            assert results is not None
            report = score_results(
                results,
                estimator=chosen_estimator(poses, estimator),
                poses=poses,
                poses_scaled=poses_scaled,
                trajectories=tuple(trajectory or ()),
                ground_truth=ground_truth,
                cloud=cloud,
                ground_truth_cameras=ground_truth_cameras,
                crop=crop,
                thresholds=tuple(threshold or ()),
                median_depth=median_depth,
            )
        tell(report, json_file)


def check_mode(
    results: Path | None,
    synthetic: int | None,
    poses: Path | None,
    estimator: str | None,
    ground_truth: Path | None,
) -> None:
    """Refuse options that do not go together, before anything is read.

    Raises:
        ParameterError: no input or two; what belongs to a result folder beside --synthetic.
    """
    if (results is None) == (synthetic is None):
        raise errors.ParameterError(
            "name a result folder, or a number of synthetic scenes",
            where="evaluate",
            got="neither" if results is None else "both",
            fix="for example `worldstereo evaluate outputs/kitchen --estimator pycolmap`, or "
            "`worldstereo evaluate --synthetic 4`",
        )
    named = {"--poses": poses, "--estimator": estimator, "--ground-truth": ground_truth}
    given = [flag for flag, value in named.items() if value is not None]
    if synthetic is not None and given:
        raise errors.ParameterError(
            "synthetic scenes bring their own truth", where=given[0], fix="leave it out"
        )


def check_scenes(synthetic: int | None, scenes: SyntheticScenes, keep: Path | None) -> None:
    """Refuse what is about synthetic scenes where none are made; ParameterError."""
    given = {
        "--photographs": scenes.photographs,
        "--shuffle-photographs": scenes.shuffle_photographs,
        "--keep": keep,
    }
    named = [flag for flag, value in given.items() if value]
    if synthetic is None and named:
        raise errors.ParameterError(
            "it is about synthetic scenes, and none are made",
            where=named[0],
            got="a result folder",
            fix="say how many scenes to make: --synthetic 4",
        )


def chosen_estimator(
    poses: Path | None, estimator: str | None
) -> Literal["file", "pycolmap"] | None:
    """Where a result folder's estimated poses come from; ParameterError for two, or another."""
    if poses is not None and estimator is None:
        return "file"
    if poses is None and estimator in (None, "pycolmap"):
        return "pycolmap" if estimator else None
    raise errors.ParameterError(
        "poses come from a file or from an estimator",
        where="--estimator",
        got=repr(estimator) + (f" and --poses {poses}" if poses else ""),
        allowed="pycolmap; or --poses FILE alone",
    )


def score_results(results: Path, **choices: Any) -> Report:
    """Measure a result folder; ``choices`` are the fields of ``ResultSettings``."""
    from worldstereo.evaluation.results import ResultSettings, evaluate_results

    console, settings = Console(stderr=True), ResultSettings(**choices)
    return evaluate_results(
        results, settings, on_clip=lambda name: say(console, f"cameras of {name}")
    )


def tell(report: Report, json_file: Path | None) -> None:
    """Print the table, and write the report where it was asked for."""
    from worldstereo.evaluation.tables import tables
    from worldstereo.formats.atomic import atomic_write_text

    if json_file is not None:
        text = json.dumps(report.to_json(), indent=1, allow_nan=False) + "\n"
        atomic_write_text(json_file, text)
    typer.echo(tables(report), nl=False)
