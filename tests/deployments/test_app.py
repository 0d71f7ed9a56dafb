"""The application graph, without a cluster: what Serve would be told."""

from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from pydantic import ValidationError
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app as unfold
from ray.serve.schema import ServeDeploySchema

from configs import AppArgs, ModelSettings, load_cluster, load_model, shipped
from configs.settings import AutoscalingSettings, DepthSettings, GeneratorSettings
from deployments.allotment import Allotment
from deployments.app import build_app, build_application, required_resources
from tests.cluster.full_size import DISTILLED, GUIDED, layout
from tests.deployments.published import published_model
from worldstereo.config import ComputeOptions, Variant
from worldstereo.errors import CheckpointError, ParameterError
from worldstereo.parallel.layout import ParallelLayout

ROOT = Path(__file__).parents[2]


def unfolded(application: Application) -> dict[str, Any]:
    built = unfold(application, name="worldstereo", make_deployment_handle=lambda *names: object())
    return {deployment.name: deployment for deployment in built.deployments}


def deployments_of(args: AppArgs) -> dict[str, Any]:
    return unfolded(build_app(args))


def allotments(
    args: AppArgs, replicas: int, ranks: ParallelLayout | None = None, *, one_node: bool = True
) -> dict[Variant, Allotment]:
    """The same for each variant."""
    found = Allotment(replicas, ranks or ParallelLayout(), one_node, "as the test says")
    return dict.fromkeys(args.variants, found)


def group_of(generator: Any) -> Any:
    """What a generator's workers are made from."""
    return generator.init_args[0]


def test_unknown_arguments_are_refused_by_serve_too() -> None:
    with pytest.raises(ValidationError, match="modle"):
        call_user_app_builder_with_args_if_necessary(build_app, {"modle": "worldstereo-tiny"})


def test_serve_config_is_what_serve_deploy_takes(tmp_path: Path) -> None:
    content = yaml.safe_load((ROOT / "serve_config.yaml").read_text())
    config = ServeDeploySchema.model_validate(content)
    (application,) = config.applications
    assert application.import_path == "deployments.app:build_app"
    assert application.route_prefix == "/"
    assert config.http_options.host == "127.0.0.1"
    built = call_user_app_builder_with_args_if_necessary(
        build_app, {**application.args, "data_dir": str(tmp_path)}
    )
    assert set(unfolded(built)) == {
        "ingress",
        "orchestrator",
        "generator-worldstereo-memory-dmd",
    }


@pytest.mark.parametrize("name", shipped("clusters"))
def test_every_cluster_configuration_is_an_application(name: str) -> None:
    args = load_cluster(name).app
    if args.model == "worldstereo":  # its config.json is not on this machine: another's will do
        model = load_model("worldstereo").model_copy(update={"source": "worldstereo-tiny"})
        args = args.model_copy(update={"model": model})
    generator = deployments_of(args)["generator-worldstereo-memory-dmd"]
    bundles = generator._replica_config.placement_group_bundles
    assert bundles[0] == {"CPU": 0.1}
    assert len(bundles) == 2
    assert ("GPU" in bundles[1]) == (name == "single-node-gpu")
    # The next clip is prepared while one is generated.
    assert generator.max_ongoing_requests == 2
    # But never in a replica that is busy while another is not.
    router = generator._deployment_config.request_router_config.get_request_router_class()
    assert router.__name__ == "LeastBusyRouter"


def test_one_generator_a_variant() -> None:
    variants = ("worldstereo-camera", "worldstereo-memory", "worldstereo-memory-dmd")
    args = AppArgs(variants=variants, generator=GeneratorSettings(replicas=2))
    built = deployments_of(args)
    assert set(built) == {"ingress", "orchestrator", *(f"generator-{name}" for name in variants)}
    assert built["generator-worldstereo-camera"].num_replicas == 2
    # 6 replicas of 0.6 CPUs, 8 banks of 0.05, ingress and orchestrator of 0.1, and what Ray needs
    assert required_resources(args, allotments(args, 2)).num_cpus == 5
    assert required_resources(args, allotments(args, 2)).num_gpus == 0


def test_ranks_are_counted(tmp_path: Path) -> None:
    args = AppArgs(model=published_model(tmp_path), data_dir=tmp_path)
    assert required_resources(args, allotments(args, 3)).num_gpus == 3
    need = required_resources(args, allotments(args, 3, layout(2, 2)))
    # 12 ranks of 4 CPUs, 3 coordinators of 0.1, 8 banks of 0.05, ingress and orchestrator, Ray
    assert (need.num_cpus, need.num_gpus) == (50, 12)
    args = args.model_copy(update={"depth": DepthSettings(device="cuda", num_gpus=0.5)})
    assert required_resources(args, allotments(args, 1, layout(1, 2))).num_gpus == 3


@pytest.mark.parametrize(("one_node", "strategy"), [(True, "STRICT_PACK"), (False, "PACK")])
def test_a_replica_of_several_ranks(tmp_path: Path, one_node: bool, strategy: str) -> None:
    ranks = layout(2, 2, fsdp=True)
    args = AppArgs(model=published_model(tmp_path), variants=(GUIDED,), data_dir=tmp_path)
    found = allotments(args, 2, ranks, one_node=one_node)
    built = unfolded(build_application(args, found))
    generator = built["generator-worldstereo-memory"]
    assert generator.num_replicas == 2
    replica = generator._replica_config
    assert replica.placement_group_bundles == [{"CPU": 0.1}, *[{"CPU": 4, "GPU": 1}] * 4]
    assert replica.placement_group_strategy == strategy
    group = group_of(generator)
    assert (group.workers, group.engine.parallel) == (4, ranks)
    # So that each replica has a next clip to prepare.
    assert built["orchestrator"].init_args[0].clips_at_once == 2
    assert built["orchestrator"].init_args[0].clips_ahead == 2


def test_the_most_replicas_of_any_variant_bound_the_clips(tmp_path: Path) -> None:
    args = AppArgs(variants=(GUIDED, DISTILLED), data_dir=tmp_path)
    found = allotments(args, 1) | {DISTILLED: Allotment(3, layout(), True, "")}
    built = unfolded(build_application(args, found))
    assert built["orchestrator"].init_args[0].clips_at_once == 3


@pytest.mark.parametrize(
    ("changes", "precision", "options"),
    [
        ({}, "bfloat16", ComputeOptions()),
        ({"precision": "fp8"}, "bfloat16", ComputeOptions(fp8=True)),
        ({"precision": "float32"}, "float32", ComputeOptions()),
        (
            {"attention": "_native_cudnn", "compile": True},
            "bfloat16",
            ComputeOptions(attention="_native_cudnn", compile=True),
        ),
    ],
)
def test_what_workers_are_told_of_computing(
    tmp_path: Path, changes: dict[str, Any], precision: str, options: ComputeOptions
) -> None:
    more = {"encoder_precision": "bfloat16", "compile_cache": "/scratch/compiled"}
    args = AppArgs(model=published_model(tmp_path, **more, **changes), data_dir=tmp_path)
    built = unfolded(build_application(args, allotments(args, 1)))
    engine = group_of(built["generator-worldstereo-memory-dmd"]).engine
    assert (engine.precision, engine.options) == (precision, options)
    assert engine.encoder_precision == "bfloat16"
    assert engine.compile_cache == Path("/scratch/compiled")


def test_a_running_clusters_gpus_decide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    resources = {"CPU": 32.0, "GPU": 4.0, "accelerator_type:H100": 1.0}
    head = {"CPU": 2.0}
    nodes = [{"Alive": True, "Resources": one} for one in (head, resources)]
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr("deployments.app.check_served_host", lambda args: None)  # no Serve
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    args = AppArgs(model=published_model(tmp_path), data_dir=tmp_path)
    with caplog.at_level("INFO", logger="deployments.app"):
        generator = deployments_of(args)["generator-worldstereo-memory-dmd"]
    assert generator.num_replicas == 4
    (record,) = caplog.records
    assert record.message.startswith("worldstereo-memory-dmd: 4 GPUs of 79.1 GiB on 1 node")
    one = args.model_copy(update={"generator": GeneratorSettings(replicas=1)})
    generator = deployments_of(one)["generator-worldstereo-memory-dmd"]
    assert group_of(generator).engine.parallel == layout(1, 4)
    assert generator._replica_config.placement_group_strategy == "STRICT_PACK"


def test_a_layout_that_no_model_can_be_run_in_is_refused_before_anything_starts(
    tmp_path: Path,
) -> None:
    model = published_model(tmp_path, parallel={"ulysses": 3})
    with pytest.raises(ParameterError, match=r"parallel\.ulysses: .*allowed: 1, 2, 4"):
        build_app(AppArgs(model=model, data_dir=tmp_path))


def test_replicas_can_follow_the_load() -> None:
    scaling = AutoscalingSettings(min_replicas=0, max_replicas=4, downscale_to_zero_delay_s=7)
    args = AppArgs(generator=GeneratorSettings(autoscaling=scaling))
    built = deployments_of(args)
    config = built["generator-worldstereo-memory-dmd"]._deployment_config
    assert config.autoscaling_config.min_replicas == 0
    assert config.autoscaling_config.max_replicas == 4
    assert config.autoscaling_config.target_ongoing_requests == 1
    assert config.autoscaling_config.downscale_delay_s == 600
    assert config.autoscaling_config.downscale_to_zero_delay_s == 7
    assert args.generator.most_replicas == 4
    # So many clips are given to Serve, whether there are replicas or not: it scales by them.
    assert built["orchestrator"].init_args[0].clips_at_once == 4


def test_replicas_of_several_ranks_follow_the_load_with_a_placement_group_each(
    tmp_path: Path,
) -> None:
    scaling = AutoscalingSettings(min_replicas=0, max_replicas=4)
    args = AppArgs(
        model=published_model(tmp_path, parallel={"cfg": 2, "ulysses": 2}),
        variants=("worldstereo-memory",),
        data_dir=tmp_path,
        generator=GeneratorSettings(autoscaling=scaling),
    )
    generator = deployments_of(args)["generator-worldstereo-memory"]
    replica = generator._replica_config
    assert replica.placement_group_bundles == [{"CPU": 0.1}, *[{"CPU": 4, "GPU": 1}] * 4]
    # No node has a GPU yet: the autoscaler looks for one that has room for all ranks.
    assert replica.placement_group_strategy == "STRICT_PACK"
    assert generator._deployment_config.autoscaling_config.max_replicas == 4


def test_parts_that_stay_can_be_kept_off_the_nodes_of_gpus() -> None:
    built = deployments_of(AppArgs(service_resource="service"))
    for name in ("ingress", "orchestrator"):
        options = built[name]._replica_config.ray_actor_options
        assert options["resources"] == {"service": 0.001}
    generator = built["generator-worldstereo-memory-dmd"]._replica_config.ray_actor_options
    assert not generator.get("resources")
    assert not deployments_of(AppArgs())["ingress"]._replica_config.ray_actor_options.get(
        "resources"
    )


def test_a_replica_gets_the_time_that_its_clips_take() -> None:
    generator = deployments_of(AppArgs())["generator-worldstereo-memory-dmd"]
    guided_step_s, steps, encode_and_decode_s = 7.6, 40, 3  # docs/performance.md, one H200
    clip_s = steps * guided_step_s + encode_and_decode_s
    grace_s = generator._deployment_config.graceful_shutdown_timeout_s
    assert grace_s > generator.max_ongoing_requests * clip_s


def test_a_model_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such configuration"):
        build_app(AppArgs(model="worldstereo-9"))
    model = ModelSettings(source=str(tmp_path), image_features="worldstereo-tiny/dinov2")
    with pytest.raises(CheckpointError):
        build_app(AppArgs(model=model, local_files_only=True))
