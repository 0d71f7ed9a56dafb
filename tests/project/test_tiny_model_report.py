"""Reports of the bundled model put together: the same scenes with other variants, and no others."""

from pathlib import Path

import pytest

from benchmarks.environment import RESULTS
from benchmarks.tiny_model import merged
from worldstereo.evaluation.report import Report

CAMERA = "worldstereo-camera"


@pytest.fixture(scope="module")
def whole() -> Report:
    return Report.model_validate_json(Path(RESULTS / "tiny_model.json").read_text())


def part(report: Report, variants: set[str]) -> Report:
    """The report as it were had only these variants been run."""
    others = set(report.settings["variants"]) - variants
    scenes = [
        scene.model_copy(
            update={
                "clips": tuple(
                    clip.model_copy(
                        update={
                            "images": {k: v for k, v in clip.images.items() if k not in others},
                            "cameras": {k: v for k, v in clip.cameras.items() if k not in others},
                        }
                    )
                    for clip in scene.clips
                ),
                "consistency": {k: v for k, v in scene.consistency.items() if k not in others},
                "reconstruction": {
                    k: v for k, v in scene.reconstruction.items() if k not in others
                },
            }
        )
        for scene in report.scenes
    ]
    settings = {**report.settings, "variants": sorted(variants)}
    return report.model_copy(update={"settings": settings, "scenes": tuple(scenes)})


def test_variants_that_were_run_apart_come_together(whole: Report) -> None:
    rest = set(whole.settings["variants"]) - {CAMERA}
    camera = part(whole, {CAMERA})
    assert CAMERA not in part(whole, rest).scenes[0].clips[0].images
    again = merged([camera, part(whole, rest)])
    assert again.means.keys() == whole.means.keys()
    for name, means in again.means.items():
        assert means.psnr == pytest.approx(whole.means[name].psnr, abs=1e-5)
        assert means.auc == pytest.approx(whole.means[name].auc, abs=1e-5)


def test_versions_are_those_that_measured(whole: Report) -> None:
    other = whole.model_copy(update={"versions": {**whole.versions, "torch": "1.0"}})
    assert merged([other]).versions["torch"] == "1.0"
    assert merged([whole, other]).versions["torch"] == f"{whole.versions['torch']}, 1.0"


def test_a_scene_without_a_variant_is_left_out(whole: Report) -> None:
    rest = part(whole, set(whole.settings["variants"]) - {CAMERA})
    fewer = rest.model_copy(update={"scenes": rest.scenes[:3]})
    again = merged([part(whole, {CAMERA}), fewer])
    assert again.settings["seeds"] == whole.settings["seeds"][:3]
    assert len(again.scenes) == 3


def test_what_cannot_be_compared_is_refused(whole: Report) -> None:
    shuffled = whole.model_copy(
        update={"settings": {**whole.settings, "shuffle_photographs": True}}
    )
    with pytest.raises(ValueError, match="different settings"):
        merged([whole, shuffled])
    scene = whole.scenes[0]
    moved = scene.clips[0].model_copy(update={"references": ("another",)})
    other = scene.model_copy(update={"clips": (moved, *scene.clips[1:])})
    with pytest.raises(ValueError, match="other references"):
        merged([whole, whole.model_copy(update={"scenes": (other, *whole.scenes[1:])})])
