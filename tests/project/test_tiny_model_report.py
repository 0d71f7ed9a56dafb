"""Reports of the bundled model put together: the same scenes with other variants, and no others."""

import pytest

from benchmarks.environment import RESULTS
from benchmarks.tiny_model import SAME_DB, merged, read_report
from worldstereo.evaluation.report import ClipReport, Failure, Report

CAMERA = "worldstereo-camera"


@pytest.fixture(scope="module")
def whole() -> Report:
    return read_report(RESULTS / "tiny_model.json")


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
    both = merged([whole, other])
    assert both.versions["torch"] == f"{whole.versions['torch']}, 1.0"
    assert merged([both, whole, other]).versions == both.versions


def first(report: Report, count: int) -> Report:
    """The report as it were of its first scenes alone."""
    settings = {**report.settings, "seeds": report.settings["seeds"][:count]}
    return report.model_copy(update={"settings": settings, "scenes": report.scenes[:count]})


def with_first_clip(report: Report, clip: ClipReport) -> Report:
    scene = report.scenes[0]
    scene = scene.model_copy(update={"clips": (clip, *scene.clips[1:])})
    return report.model_copy(update={"scenes": (scene, *report.scenes[1:])})


def test_a_scene_that_a_variant_was_not_run_on_is_left_out(whole: Report) -> None:
    rest = part(whole, set(whole.settings["variants"]) - {CAMERA})
    again = merged([part(whole, {CAMERA}), first(rest, 3)])
    assert again.settings["seeds"] == whole.settings["seeds"][:3]
    assert [scene.seed for scene in again.scenes] == whole.settings["seeds"][:3]


def test_a_scene_that_a_variant_failed_on_stays_with_its_failures(whole: Report) -> None:
    camera, rest = (
        part(whole, {CAMERA}),
        part(whole, set(whole.settings["variants"]) - {CAMERA}),
    )
    lost = Failure(scene=whole.scenes[0].name, method=CAMERA, what="clip", detail="out of memory")
    nothing = part(whole, set()).scenes[0].model_copy(update={"failures": (lost,)})
    camera = camera.model_copy(update={"scenes": (nothing, *camera.scenes[1:])})
    again = merged([camera, rest])
    assert again.settings["seeds"] == whole.settings["seeds"]
    assert again.means[CAMERA].failures == 1
    assert again.means[CAMERA].scenes == len(whole.scenes) - 1
    assert lost in again.failures


def test_what_cannot_be_compared_is_refused(whole: Report) -> None:
    shuffled = whole.model_copy(
        update={"settings": {**whole.settings, "shuffle_photographs": True}}
    )
    with pytest.raises(ValueError, match=r"shuffle_photographs is \[False, True\]"):
        merged([whole, shuffled])
    with pytest.raises(ValueError, match="evaluate --synthetic"):
        merged([whole, whole.model_copy(update={"kind": "results"})])
    clip = whole.scenes[0].clips[0]
    moved = clip.model_copy(update={"references": ("another",)})
    with pytest.raises(ValueError, match="seen holes differ"):
        merged([whole, with_first_clip(whole, moved)])
    scores = clip.images["pull-push"]["holes"]
    assert scores.psnr is not None
    brighter = scores.model_copy(update={"psnr": scores.psnr + 2 * SAME_DB})
    fill = {**clip.images["pull-push"], "holes": brighter}
    other = clip.model_copy(update={"images": {**clip.images, "pull-push": fill}})
    with pytest.raises(ValueError, match="pull-push over holes"):
        merged([whole, with_first_clip(whole, other)])
