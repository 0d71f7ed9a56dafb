"""The application graph, without a cluster: what Serve would be told."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.serve import Application
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve._private.build_app import build_app as unfold
from ray.serve.schema import ServeDeploySchema

from configs import AppArgs, ModelSettings, load_cluster, load_model, shipped
from configs.settings import AutoscalingSettings, GeneratorSettings
from deployments.app import build_app, required_resources
from worldstereo.errors import CheckpointError, ParameterError

ROOT = Path(__file__).parents[2]


def unfolded(application: Application) -> dict[str, Any]:
    built = unfold(application, name="worldstereo", make_deployment_handle=lambda *names: object())
    return {deployment.name: deployment for deployment in built.deployments}


def deployments_of(args: AppArgs) -> dict[str, Any]:
    return unfolded(build_app(args))


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
    assert generator.max_ongoing_requests == 1


def test_one_generator_a_variant() -> None:
    variants = ("worldstereo-camera", "worldstereo-memory", "worldstereo-memory-dmd")
    args = AppArgs(variants=variants, generator=GeneratorSettings(replicas=2))
    built = deployments_of(args)
    assert set(built) == {"ingress", "orchestrator", *(f"generator-{name}" for name in variants)}
    assert built["generator-worldstereo-camera"].num_replicas == 2
    # 6 replicas of 0.6 CPUs, 8 banks of 0.05, ingress and orchestrator of 0.1, and what Ray needs
    assert required_resources(args).num_cpus == 5
    assert required_resources(args).num_gpus == 0


def test_gpus_are_counted() -> None:
    model = load_model("worldstereo")
    args = AppArgs(model=model, generator=GeneratorSettings(replicas=3))
    assert required_resources(args).num_gpus == 3


def test_replicas_can_follow_the_load() -> None:
    scaling = AutoscalingSettings(min_replicas=0, max_replicas=4)
    args = AppArgs(generator=GeneratorSettings(autoscaling=scaling))
    config = deployments_of(args)["generator-worldstereo-memory-dmd"]._deployment_config
    assert config.autoscaling_config.min_replicas == 0
    assert config.autoscaling_config.max_replicas == 4
    assert config.autoscaling_config.target_ongoing_requests == 1
    assert args.generator.most_replicas == 4


def test_a_model_that_is_not_there_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no such configuration"):
        build_app(AppArgs(model="worldstereo-9"))
    model = ModelSettings(source=str(tmp_path), image_features="worldstereo-tiny/dinov2")
    with pytest.raises(CheckpointError):
        build_app(AppArgs(model=model, local_files_only=True))
