"""What the bundled model does on held-out worlds: reports of ``worldstereo evaluate`` put together.

``python -m benchmarks.tiny_model NAME --on MACHINE REPORT...`` writes ``results/NAME.json`` from
reports of the same scenes with other variants, or of other scenes with the same variants; scenes
that not all variants were run on are left out. Which commands made the reports,
docs/worldstereo-tiny/README.md says.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.environment import RESULTS
from worldstereo.evaluation.inpainting import FILLS
from worldstereo.evaluation.report import ClipReport, Report, SceneReport, make_report
from worldstereo.evaluation.synthetic import methods
from worldstereo.evaluation.tables import tables

# Settings that reports of one table may differ in.
OWN_SETTINGS = ("variants", "seeds")
# How much the same baseline may differ in dB: other processors round a few pixels differently.
SAME_DB = 0.05


def merged(reports: Sequence[Report]) -> Report:
    """One report of several.

    Args:
        reports: of ``evaluate --synthetic``, of scenes made with the same settings.

    Raises:
        ValueError: a report is of results, settings differ, or what is measured against.
    """
    kinds = {report.kind for report in reports}
    if kinds != {"synthetic"}:
        raise ValueError(f"reports of {sorted(kinds)}; allowed: those of evaluate --synthetic")
    shared = [_shared(report) for report in reports]
    for key in sorted(set().union(*shared)):
        values = [settings.get(key) for settings in shared]
        if any(value != values[0] for value in values):
            raise ValueError(f"reports of different settings: {key} is {values}; run one again")
    variants = list(dict.fromkeys(v for report in reports for v in report.settings["variants"]))
    found: dict[int, SceneReport] = {}
    asked: dict[int, set[str]] = defaultdict(set)
    for report in reports:
        for seed, scene in zip(report.settings["seeds"], report.scenes, strict=True):
            found[seed] = _both(found[seed], scene) if seed in found else scene
            asked[seed].update(report.settings["variants"])
    whole = [found[seed] for seed in sorted(found) if asked[seed] == set(variants)]
    settings = {**shared[0], "variants": variants, "seeds": [scene.seed for scene in whole]}
    report = make_report("synthetic", settings, methods(variants), whole, fills=tuple(FILLS))
    return report.model_copy(update={"versions": _versions(reports)})


def _versions(reports: Sequence[Report]) -> dict[str, str]:
    """Those that measured, not those that put together: all, where machines differed."""
    # A report may have been put together itself, and name several.
    return {
        package: ", ".join(
            dict.fromkeys(v for report in reports for v in report.versions[package].split(", "))
        )
        for package in reports[0].versions
    }


def _shared(report: Report) -> dict[str, object]:
    found = {key: value for key, value in report.settings.items() if key not in OWN_SETTINGS}
    # A YAML file of the same name has the same weights on another device.
    return {**found, "model": Path(found["model"]).stem}


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
        raise ValueError(
            f"{one.id} with references {one.references} and {other.id} with {other.references}: "
            "their seen holes differ; run one of the reports again"
        )
    for name in one.images.keys() & other.images.keys():
        for mask, scores in one.images[name].items():
            again = other.images[name][mask]
            if abs((scores.psnr or 0) - (again.psnr or 0)) > SAME_DB:
                raise ValueError(
                    f"{one.id}, {name} over {mask}: {scores.psnr} and {again.psnr} dB, though both "
                    f"are of the same pictures; allowed: {SAME_DB} dB; run one report again"
                )
    return one.model_copy(
        update={
            "images": {**other.images, **one.images},
            "cameras": {**other.cameras, **one.cameras},
        }
    )


def read_report(file: Path) -> Report:
    """A report as ``evaluate`` writes it, or of a result file of this script."""
    content = json.loads(file.read_text())
    for key in ("benchmark", "measured_on"):
        content.pop(key, None)
    return Report.model_validate(content)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tiny_model", description=__doc__)
    parser.add_argument("name", help="of the result file")
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--on", action="append", required=True, help="a machine that measured")
    arguments = parser.parse_args()
    report = merged([read_report(file) for file in arguments.reports])
    # One scene a line: half the size of an indented file.
    content = {"benchmark": arguments.name, "measured_on": arguments.on, **report.to_json()}
    scenes = ",\n".join(json.dumps(scene) for scene in content.pop("scenes"))
    text = json.dumps({**content, "scenes": []}, indent=1).replace(
        '"scenes": []', f'"scenes": [\n{scenes}\n]'
    )
    (RESULTS / f"{arguments.name}.json").write_text(text + "\n")
    print(tables(report), end="")


if __name__ == "__main__":
    main()
