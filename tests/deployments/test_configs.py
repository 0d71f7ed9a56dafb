"""Every shipped YAML is valid, and an invalid one is refused with what is wrong."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import AppArgs, load_cluster, load_model, shipped
from configs.settings import AutoscalingSettings, OrchestratorSettings
from worldstereo.errors import ParameterError


def test_the_shipped_files_are_the_expected_ones() -> None:
    assert shipped("models") == ["worldstereo", "worldstereo-tiny"]
    assert shipped("clusters") == ["local", "single-node-gpu"]


@pytest.mark.parametrize("name", shipped("models"))
def test_every_model_loads(name: str) -> None:
    settings = load_model(name)
    assert settings.source
    on_gpu = settings.device == "cuda"
    assert (settings.worker_num_gpus > 0) == on_gpu
    assert settings.precision == ("bfloat16" if on_gpu else "float32")


@pytest.mark.parametrize("name", shipped("clusters"))
def test_every_cluster_loads_and_its_model_exists(name: str) -> None:
    settings = load_cluster(name)
    assert isinstance(settings.app.model, str)
    load_model(settings.app.model)


def test_the_tiny_model_computes_the_same_in_any_process() -> None:
    assert load_model("worldstereo-tiny").torch_threads == 1


def test_a_path_is_loaded_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("source: /models/mine\nimage_features: facebook/dinov2-base\n")
    assert load_model(file).source == "/models/mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source: x\nimage_features: y\nprecisoin: float32\n", "precisoin: Extra inputs"),
        ("source: x\nimage_features: y\nprecision: float16\n", "precision: Input should be"),
        ("source: x\n", "image_features: Field required"),
        ("source: [\n", "not YAML"),
        ("just text\n", "the whole file"),
        ("source: x\nimage_features: y\nengine: rm -rf\n", "engine: String should match"),
    ],
)
def test_a_wrong_model_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ParameterError, match=message) as caught:
        load_model(file)
    assert caught.value.where == str(file)


def test_an_unknown_name_tells_the_known_ones() -> None:
    with pytest.raises(ParameterError, match="worldstereo-tiny"):
        load_model("worldstereo-huge")


@pytest.mark.parametrize(
    "fields",
    [
        {"variants": []},
        {"variants": ["worldstereo-memory", "worldstereo-memory"]},
        {"variants": ["worldstereo-9"]},
        {"generator": {"replicas": 0}},
        {"max_queued_scene": 5},
    ],
)
def test_wrong_arguments_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AppArgs.model_validate(fields)


def test_bounds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="above max_replicas"):
        AutoscalingSettings(min_replicas=3, max_replicas=2)
    with pytest.raises(ValidationError, match="less than two beats"):
        OrchestratorSettings(beat_interval_s=5, beat_timeout_s=9)
