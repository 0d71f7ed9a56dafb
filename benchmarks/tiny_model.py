"""What the bundled model does on held-out worlds: reports of ``worldstereo evaluate`` put together.

``python -m benchmarks.tiny_model NAME REPORT...`` writes ``results/NAME.json`` from reports of the
same scenes with other variants, or of other scenes with the same variants; only scenes that have
all variants stay. Which commands made the reports, docs/worldstereo-tiny/README.md says.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import RESULTS
from worldstereo.evaluation.inpainting import FILLS
from worldstereo.evaluation.report import ClipReport, Report, SceneReport, make_report
from worldstereo.evaluation.synthetic import EXACT, RENDER, START_POINTS
from worldstereo.evaluation.tables import tables

# Settings that reports of one table may differ in.
OWN_SETTINGS = ("variants", "seeds")
# How much the same baseline may differ in dB: other processors round a few pixels differently.
SAME_DB = 0.05


def merged(reports: Sequence[Report]) -> Report:
    """One report of several.

    Args:
        reports: of scenes made with the same settings.

    Raises:
        ValueError: settings differ, or what is measured against.
    """
    variants = list(dict.fromkeys(v for report in reports for v in report.settings["variants"]))
    shared = [_shared(report) for report in reports]
    if any(other != shared[0] for other in shared):
        raise ValueError(f"reports of different settings: {shared}")
    found: dict[int, SceneReport] = {}
    for report in reports:
        for scene in report.scenes:
            assert scene.seed is not None
            known = found.get(scene.seed)
            found[scene.seed] = scene if known is None else _both(known, scene)
    whole = [found[seed] for seed in sorted(found) if set(variants) <= _variants(found[seed])]
    settings = {**shared[0], "variants": variants, "seeds": [scene.seed for scene in whole]}
    methods = (RENDER, *FILLS, *variants, START_POINTS, EXACT)
    report = make_report("synthetic", settings, methods, whole, fills=tuple(FILLS))
    return report.model_copy(update={"versions": _versions(reports)})


def _versions(reports: Sequence[Report]) -> dict[str, str]:
    """Those that measured, not those that put together: all, where machines differed."""
    return {
        package: ", ".join(dict.fromkeys(report.versions[package] for report in reports))
        for package in reports[0].versions
    }


def _shared(report: Report) -> dict[str, object]:
    found = {key: value for key, value in report.settings.items() if key not in OWN_SETTINGS}
    # A YAML file of the same name has the same weights on another device.
    return {**found, "model": Path(found["model"]).stem}


def _variants(scene: SceneReport) -> set[str]:
    return {name for clip in scene.clips for name in clip.images}


def _both(one: SceneReport, other: SceneReport) -> SceneReport:
    """One scene as two reports have it, each with variants of its own."""
    clips = [_both_clips(a, b) for a, b in zip(one.clips, other.clips, strict=True)]
    return one.model_copy(
        update={
            "clips": tuple(clips),
            "consistency": {**other.consistency, **one.consistency},
            "reconstruction": {**other.reconstruction, **one.reconstruction},
            "failures": one.failures + other.failures,
        }
    )


def _both_clips(one: ClipReport, other: ClipReport) -> ClipReport:
    if (one.id, one.references) != (other.id, other.references):
        raise ValueError(f"{one.id} and {other.id}: other references, so other seen holes")
    for name in one.images.keys() & other.images.keys():
        for mask, scores in one.images[name].items():
            again = other.images[name][mask]
            if abs((scores.psnr or 0) - (again.psnr or 0)) > SAME_DB:
                raise ValueError(f"{one.id}, {name}, {mask}: {scores.psnr} and {again.psnr} dB")
    return one.model_copy(
        update={
            "images": {**other.images, **one.images},
            "cameras": {**other.cameras, **one.cameras},
        }
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_model", description=__doc__)
    parser.add_argument("name", help="of the result file")
    parser.add_argument("reports", nargs="+", type=Path)
    arguments = parser.parse_args()
    reports = [Report.model_validate_json(file.read_text()) for file in arguments.reports]
    report = merged(reports)
    # One scene a line: half the size of an indented file.
    content = report.to_json()
    scenes = ",\n".join(json.dumps(scene) for scene in content.pop("scenes"))
    text = json.dumps({**content, "scenes": []}, indent=1).replace(
        '"scenes": []', f'"scenes": [\n{scenes}\n]'
    )
    (RESULTS / f"{arguments.name}.json").write_text(text + "\n")
    print(tables(report), end="")


if __name__ == "__main__":
    main()
