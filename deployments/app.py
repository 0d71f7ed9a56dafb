"""The application: which deployments there are and how they are joined. Wired here alone.

::

    HTTP -> Ingress --wake--> Orchestrator --clips--> generator-<variant>  (one deployment each)
               \\                  |   \\                    |  coordinator + worker group
                \\-- store <------/     \\-> memory bank <---/   (one actor a scene)
                                              \\--> depth, reconstructor   (where they are set)

``build_app`` is what serve_config.yaml names; ``args`` there are the fields of ``AppArgs``.
"""

# No postponed annotations here: Serve reads the builder's, to validate ``args`` with it.
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import RequestRouterConfig
from worldstereo_client.schemas import GPU_OUTPUTS, Output

from actors.engine import EngineSpec
from actors.log_lines import LogOptions
from actors.worker_group import GroupSpec
from cluster.hardware import ClusterGpus, MachineGpus
from configs.loader import load_model
from configs.settings import AppArgs, GeneratorSettings, ModelSettings
from deployments.allotment import Allotment, allot, gpus_beside
from deployments.depth import depth_deployment
from deployments.folders import SceneFolders
from deployments.generator import Deadlines, Generator
from deployments.ingress import Ingress, IngressSpec
from deployments.listening import check_served_host
from deployments.names import generator_name
from deployments.offers import Offers
from deployments.orchestrator import Orchestrator, OrchestratorSpec
from deployments.reconstructor import offered_outputs, reconstructor_deployment
from deployments.routing import LeastBusyRouter
from deployments.tables import store_url
from deployments.telling import Telling
from deployments.webhooks import outbound_rules
from deployments.weights import model_config_of
from worldstereo.config import ComputeOptions, ModelConfig, Variant
from worldstereo.models.source import BUNDLED, bundled_folder

__all__ = [
    "AppArgs",
    "Resources",
    "build_app",
    "build_application",
    "model_settings",
    "required_resources",
]

logger = logging.getLogger(__name__)

# Clips that a replica takes: while one is generated, the next is prepared or the last committed.
_CLIPS_OF_A_REPLICA = 2

# Of a resource that only says where a part may be.
_LITTLE = 0.001

# How often Serve looks whether the processes are there that everything waits for, seconds.
_QUICK_LOOK_S = 1

# Part of the CPU that Ray asks for, for itself, beside the application.
_SPARE_CPUS = 0.5


@dataclass(frozen=True)
class Resources:
    """What a cluster must have for an application to run, in Ray's units."""

    num_cpus: float
    num_gpus: float


def build_app(args: AppArgs) -> Application:
    """The Serve application.

    Args:
        args: all there is to choose; Serve builds it from the ``args`` of serve_config.yaml.

    Returns:
        The application, bound and ready for ``serve.run`` or ``LocalCluster.deploy``.

    Raises:
        ParameterError: the model's configuration does not exist or is not valid, or its ranks are
            none that it can be run in here; or Serve listens beyond loopback without API keys.
        CheckpointError: a variant's config.json cannot be had; the weights are the workers' part.
    """
    check_served_host(args)
    gpus = ClusterGpus.of_running_cluster() if ray.is_initialized() else MachineGpus()
    allotments = allot(args, model_settings(args), gpus)
    for variant, allotment in allotments.items():
        logger.info("%s: %s", variant, allotment.reason)
    return build_application(args, allotments)


def build_application(args: AppArgs, allotments: Mapping[Variant, Allotment]) -> Application:
    """The Serve application with these replicas and ranks; ``build_app`` chooses them itself.

    Args:
        args: all there is to choose.
        allotments: what each variant gets.

    Raises:
        ParameterError, CheckpointError: as ``build_app``.
    """
    model = model_settings(args)
    folders = SceneFolders.of(args)
    shared = _Shared(
        folders=folders,
        database_url=store_url(args.data_dir, args.database_url),
        configs={
            variant: model_config_of(model, variant, local_files_only=args.local_files_only)
            for variant in args.variants
        },
        allotments=allotments,
    )
    generators = {
        variant: _generator(args, model, variant, allotments[variant]) for variant in args.variants
    }
    return _ingress(args, model, shared, _orchestrator(args, model, shared, generators))


def model_settings(args: AppArgs) -> ModelSettings:
    """The settings that ``args.model`` names, or is.

    Raises:
        ParameterError: there is no such configuration, or it is not valid.
    """
    return load_model(args.model) if isinstance(args.model, str) else args.model


def required_resources(args: AppArgs, allotments: Mapping[Variant, Allotment]) -> Resources:
    """What a cluster must have so that every part, and every scene's memory bank, finds room.

    The embedded cluster can be given this number of logical CPUs whatever the machine has: they
    are a book-keeping unit, and the parts beside the workers are idle most of the time.
    """
    model = model_settings(args)
    replicas = sum(item.replicas for item in allotments.values())
    workers = sum(item.replicas * item.layout.world_size for item in allotments.values())
    cpus = (
        args.ingress.replicas * args.ingress.num_cpus
        + args.orchestrator.num_cpus
        + args.orchestrator.max_active_scenes * args.orchestrator.bank_num_cpus
        + replicas * args.generator.coordinator_num_cpus
        + workers * model.worker_num_cpus
    )
    if args.depth is not None:
        cpus += args.depth.autoscaling.max_replicas * args.depth.num_cpus
    if args.reconstructor is not None:
        cpus += args.reconstructor.num_cpus
    gpus = workers * model.worker_num_gpus + gpus_beside(args)
    return Resources(num_cpus=math.ceil(cpus + _SPARE_CPUS), num_gpus=math.ceil(gpus))


@dataclass(frozen=True)
class _Shared:
    """What ingress and orchestrator must agree on."""

    folders: SceneFolders
    database_url: str
    configs: Mapping[Variant, ModelConfig]
    allotments: Mapping[Variant, Allotment]

    @property
    def most_replicas(self) -> int:
        """Of any variant."""
        return max(item.replicas for item in self.allotments.values())


def _ingress(
    args: AppArgs, model: ModelSettings, shared: _Shared, orchestrator: Application
) -> Application:
    spec = IngressSpec(
        folders=shared.folders,
        database_url=shared.database_url,
        settings=args.ingress,
        uploads=args.uploads,
        source=model.source,
        configs=shared.configs,
        scales_to_zero=args.generator.fewest_replicas == 0,
        offers=Offers(
            outputs=(
                *(name for name in get_args(Output) if name not in GPU_OUTPUTS),
                *offered_outputs(args.reconstructor),
            ),
            depth_estimator=args.depth.estimator if args.depth else None,
            webhooks=outbound_rules(args.webhooks) if args.webhooks else None,
        ),
        auth=args.auth,
        uris=args.uris,
        logging=_logging(args),
    )
    deployment = serve.deployment(serve.ingress()(Ingress)).options(
        name="ingress",
        num_replicas=args.ingress.replicas,
        max_ongoing_requests=args.ingress.max_ongoing_requests,
        health_check_period_s=_QUICK_LOOK_S,
        graceful_shutdown_timeout_s=5,
        ray_actor_options=_on_service_nodes(args, args.ingress.num_cpus),
    )
    application: Application = deployment.bind(spec, orchestrator)
    return application


def _orchestrator(
    args: AppArgs,
    model: ModelSettings,
    shared: _Shared,
    generators: Mapping[Variant, Application],
) -> Application:
    spec = OrchestratorSpec(
        folders=shared.folders,
        database_url=shared.database_url,
        settings=args.orchestrator,
        clips_at_once=shared.most_replicas,
        clips_ahead=(_CLIPS_OF_A_REPLICA - 1) * shared.most_replicas,
        configs=shared.configs,
        image_features=_image_features(model),
        local_files_only=args.local_files_only,
        depth=args.depth,
        reconstructor=args.reconstructor,
        retention=args.retention,
        telling=Telling(
            gpus={
                variant: item.layout.world_size * model.worker_num_gpus
                for variant, item in shared.allotments.items()
            },
            logging=_logging(args),
            tracing=args.tracing,
            webhooks=args.webhooks,
        ),
    )
    deployment = serve.deployment(Orchestrator).options(
        name="orchestrator",
        num_replicas=1,
        max_ongoing_requests=1000,
        health_check_period_s=_QUICK_LOOK_S,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=5,
        ray_actor_options=_on_service_nodes(args, args.orchestrator.num_cpus),
    )
    application: Application = deployment.bind(
        spec,
        dict(generators),
        args.depth and depth_deployment(args.depth, local_files_only=args.local_files_only),
        args.reconstructor and reconstructor_deployment(args.reconstructor),
    )
    return application


def _generator(
    args: AppArgs, model: ModelSettings, variant: Variant, allotment: Allotment
) -> Application:
    workers = allotment.layout.world_size
    group = GroupSpec(
        engine=EngineSpec(
            factory=model.engine,
            source=model.source,
            variant=variant,
            device=model.device,
            precision="bfloat16" if model.precision == "fp8" else model.precision,
            torch_threads=model.torch_threads,
            local_files_only=args.local_files_only,
            parallel=allotment.layout,
            options=ComputeOptions(
                attention=model.attention, compile=model.compile, fp8=model.precision == "fp8"
            ),
            encoder_precision=model.encoder_precision,
            compile_cache=model.compile_cache,
        ),
        workers=workers,
        worker_num_cpus=model.worker_num_cpus,
        worker_num_gpus=model.worker_num_gpus,
        start_timeout_s=model.start_timeout_s,
        logging=_logging(args),
    )
    deadlines = Deadlines(
        beat_interval_s=args.orchestrator.beat_interval_s,
        beat_timeout_s=args.orchestrator.beat_timeout_s,
        retrieve_s=args.orchestrator.retrieve_timeout_s,
        step_s=model.step_timeout_s,
        commit_s=args.orchestrator.commit_timeout_s,
    )
    worker: dict[str, float] = {"CPU": model.worker_num_cpus, "GPU": model.worker_num_gpus}
    bundle = {name: amount for name, amount in worker.items() if amount > 0}
    application: Application = (
        serve.deployment(Generator)
        .options(
            name=generator_name(variant),
            max_ongoing_requests=_CLIPS_OF_A_REPLICA,
            request_router_config=RequestRouterConfig(request_router_class=LeastBusyRouter),
            placement_group_bundles=[
                {"CPU": args.generator.coordinator_num_cpus},
                *[bundle] * workers,
            ],
            placement_group_strategy="STRICT_PACK" if allotment.one_node else "PACK",
            ray_actor_options={"num_cpus": args.generator.coordinator_num_cpus},
            health_check_period_s=args.generator.health_check_period_s,
            health_check_timeout_s=args.orchestrator.beat_timeout_s,
            graceful_shutdown_timeout_s=args.generator.graceful_shutdown_timeout_s,
            **_scale(args.generator, allotment.replicas),
        )
        .bind(group, deadlines)
    )
    return application


def _logging(args: AppArgs) -> LogOptions:
    return LogOptions(args.logging.format, args.logging.level)


def _on_service_nodes(args: AppArgs, num_cpus: float) -> dict[str, Any]:
    """What a part asks for that must not hold a GPU node."""
    if args.service_resource is None:
        return {"num_cpus": num_cpus}
    return {"num_cpus": num_cpus, "resources": {args.service_resource: _LITTLE}}


def _image_features(model: ModelSettings) -> str:
    """The folder of a part of a bundled model, ``<model>/<part>``; else the name itself."""
    name, _, part = model.image_features.partition("/")
    return str(bundled_folder(name) / part) if name in BUNDLED else model.image_features


def _scale(settings: GeneratorSettings, replicas: int) -> dict[str, Any]:
    if settings.autoscaling is None:
        return {"num_replicas": replicas}
    # One clip each, though a replica takes two: a second one would start at once elsewhere.
    return {"autoscaling_config": settings.autoscaling.for_serve(target_ongoing_requests=1)}
