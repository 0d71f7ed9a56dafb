"""Every shipped YAML is valid, and an invalid one is refused with what is wrong."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from configs import AppArgs, load_cluster, load_model, shipped
from configs.settings import (
    AutoscalingSettings,
    GeneratorSettings,
    ModelSettings,
    OrchestratorSettings,
)
from worldstereo.errors import ParameterError
from worldstereo.parallel.layout import ParallelLayout

MODEL: dict[str, object] = {"source": "x", "image_features": "y"}
GPU: dict[str, object] = {"device": "cuda", "worker_num_gpus": 1}


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
    ("fields", "message"),
    [
        ({"precision": "fp8"}, "precision fp8 with device cpu: it takes device cuda"),
        (
            {"precision": "fp8", **GPU, "parallel": {"ulysses": 2, "fsdp": True}},
            "precision fp8 with parallel.fsdp true: .* fsdp false, or precision bfloat16",
        ),
        (
            {"device": "cuda", "worker_num_gpus": 0.5, "parallel": {"cfg": 2}},
            "worker_num_gpus 0.5 with parallel of 2 ranks: .* worker_num_gpus 1",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    fields: dict[str, object], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSettings.model_validate(MODEL | fields)


@pytest.mark.parametrize(
    ("fields", "where", "message"),
    [
        ({"precision": "fp4"}, "precision", "'float32', 'bfloat16' or 'fp8'"),
        ({"encoder_precision": "fp8"}, "encoder_precision", "'float32' or 'bfloat16'"),
        ({"parallel": {"cfg": 3}}, "parallel.cfg", "1 or 2"),
        ({"parallel": {"ulysses": 0}}, "parallel.ulysses", "greater than or equal to 1"),
        ({"parallel": {"ring": 2}}, "parallel.ring", "Extra inputs are not permitted"),
        ({"gpu_memory_gib": 0}, "gpu_memory_gib", "greater than 0"),
        ({"compile": "often"}, "compile", "valid boolean"),
    ],
)
def test_a_setting_out_of_range_is_named(
    fields: dict[str, object], where: str, message: str
) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        ModelSettings.model_validate(MODEL | fields)
    (error,) = caught.value.errors()
    assert ".".join(map(str, error["loc"])) == where


def test_ranks_are_set_or_chosen() -> None:
    assert ModelSettings.model_validate(MODEL).parallel is None
    set_to = ModelSettings.model_validate(MODEL | GPU | {"parallel": {"cfg": 2, "fsdp": True}})
    assert set_to.parallel == ParallelLayout(cfg=2, fsdp=True)
    on_cpu = ModelSettings.model_validate(MODEL | {"parallel": {"ulysses": 2}})
    assert on_cpu.parallel == ParallelLayout(ulysses=2)
    eight_bits = ModelSettings.model_validate(
        MODEL | GPU | {"precision": "fp8", "parallel": {"cfg": 2}}
    )
    assert eight_bits.precision == "fp8"


def test_the_published_model_is_compiled_before_it_is_ready() -> None:
    published, tiny = load_model("worldstereo"), load_model("worldstereo-tiny")
    assert (published.compile, published.attention, published.parallel) == (True, "auto", None)
    assert published.step_timeout_s == 120
    assert (tiny.compile, tiny.step_timeout_s) == (False, 60)


@pytest.mark.parametrize(
    ("generator", "most", "fewest"),
    [
        ({}, None, 1),
        ({"replicas": 3}, 3, 3),
        ({"autoscaling": {"min_replicas": 0, "max_replicas": 4}}, 4, 0),
        ({"replicas": 2, "autoscaling": {"min_replicas": 1, "max_replicas": 4}}, 4, 1),
    ],
)
def test_how_many_replicas_there_may_be(
    generator: dict[str, object], most: int | None, fewest: int
) -> None:
    settings = GeneratorSettings.model_validate(generator)
    assert (settings.most_replicas, settings.fewest_replicas) == (most, fewest)


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
