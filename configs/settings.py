"""What the application can be told, as strict frozen models; defaults fit one small machine.

Owns the fields, their units and ranges. Reading files is loader.py's; nothing below the
application builder reads YAML or the environment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from configs.base import GIB as GIB
from configs.base import MIB as MIB
from configs.base import Settings as Settings
from configs.front import AuthSettings as AuthSettings
from configs.front import BlobSettings as BlobSettings
from configs.front import IngressSettings as IngressSettings
from configs.front import RetentionSettings as RetentionSettings
from configs.front import UploadLimits as UploadLimits
from configs.front import UriSettings as UriSettings
from configs.telling import LoggingSettings, TracingSettings, WebhookSettings
from worldstereo.config import Variant
from worldstereo.depth.estimators import EstimatorName
from worldstereo.parallel.layout import ParallelLayout
from worldstereo.reconstruction.splats import SplatParameters
from worldstereo.reconstruction.worldmirror_run import WorldMirrorSettings


class ModelSettings(Settings):
    """One model family: where its weights are and what one worker of it needs.

    ``engine`` names the function that loads it, ``module:function``, called with these
    settings and a variant; it returns an ``actors.engine.ClipEngine``.
    """

    source: str = Field(description="bundled name, Hub repository or folder of the weights")
    image_features: str = Field(description="the same for the DINOv2 that reduces references")
    precision: Literal["float32", "bfloat16", "fp8"] = Field(
        default="float32",
        description="of the transformer; fp8: bfloat16, with the backbone's matrix products in 8 "
        "bits, on a GPU that has them",
    )
    encoder_precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="of the text and image encoders, whole on every rank unless fsdp; the "
        "published program runs them in float32, bfloat16 takes half the memory",
    )
    attention: str = Field(
        default="auto",
        description="attention backend by diffusers' name, or fp8; auto: what suits the device",
    )
    compile: bool = Field(
        default=False,
        description="compile the transformer's blocks: minutes before a worker is ready, then "
        "faster steps",
    )
    compile_cache: Path | None = Field(
        default=None,
        description="folder for compiled code, on a local disk of each node; null: torch's own",
    )
    parallel: ParallelLayout | None = Field(
        default=None,
        description="the ranks that share a clip; null: chosen by the cluster's GPUs, one rank on "
        "a CPU",
    )
    gpu_memory_gib: float | None = Field(
        default=None,
        gt=0,
        description="of the smallest GPU, for that choice; null: asked of a GPU where the "
        "application is built, else by the type that Ray names",
    )
    device: Literal["cpu", "cuda"] = "cpu"
    torch_threads: int | None = Field(
        default=1,
        ge=1,
        description="CPU threads of one worker, the same in all so that results agree to the bit; "
        "null leaves torch's choice",
    )
    worker_num_cpus: float = Field(default=1.0, ge=0)
    worker_num_gpus: float = Field(default=0.0, ge=0)
    start_timeout_s: float = Field(
        default=120.0,
        gt=0,
        description="longest time in which a worker must be ready: weights loaded, and compiled "
        "where it compiles",
    )
    step_timeout_s: float = Field(
        default=60.0, gt=0, description="a clip that shows no progress for this long is stuck"
    )
    engine: str = Field(default="actors.engine:load_worldstereo", pattern=r"^[\w.]+:\w+$")

    @model_validator(mode="after")
    def _fp8_on_whole_weights_of_a_gpu(self) -> Self:
        if self.precision == "fp8" and self.device != "cuda":
            raise ValueError(f"precision fp8 with device {self.device}: it takes device cuda")
        if self.precision == "fp8" and self.parallel is not None and self.parallel.fsdp:
            raise ValueError(
                "precision fp8 with parallel.fsdp true: weights in 8 bits are not sharded; "
                "fsdp false, or precision bfloat16"
            )
        return self

    @model_validator(mode="after")
    def _a_gpu_for_each_rank(self) -> Self:
        ranks = 1 if self.parallel is None else self.parallel.world_size
        if self.device == "cuda" and ranks > 1 and self.worker_num_gpus != 1:
            raise ValueError(
                f"worker_num_gpus {self.worker_num_gpus:g} with parallel of {ranks} ranks: each "
                "takes a GPU of its own, worker_num_gpus 1"
            )
        return self


class AutoscalingSettings(Settings):
    """Replicas of one generator follow its queued and running clips."""

    min_replicas: int = Field(default=1, ge=0)
    max_replicas: int = Field(default=1, ge=1)
    upscale_delay_s: float = Field(
        default=10.0, ge=0, description="from none to one there is no delay"
    )
    downscale_delay_s: float = Field(default=600.0, ge=0)
    downscale_to_zero_delay_s: float | None = Field(
        default=None, ge=0, description="of the last replica; null: downscale_delay_s"
    )
    look_back_period_s: float = Field(
        default=15.0, gt=10, description="the load is its mean over this time; told every 10 s"
    )

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Self:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self

    def for_serve(self, target_ongoing_requests: float) -> dict[str, object]:
        """Serve's ``autoscaling_config``: so many requests a replica, queued ones counted."""
        return self.model_dump() | {"target_ongoing_requests": target_ongoing_requests}


class GeneratorSettings(Settings):
    """The generator deployments; one a variant, all alike."""

    replicas: int | None = Field(
        default=None,
        ge=1,
        description="of each variant, a fixed count, unless autoscaling is set; null: as many as "
        "the cluster's GPUs allow, one on a CPU",
    )
    autoscaling: AutoscalingSettings | None = None
    coordinator_num_cpus: float = Field(default=0.1, gt=0)
    health_check_period_s: float = Field(default=5.0, gt=0)
    graceful_shutdown_timeout_s: float = Field(
        default=900.0,
        ge=0,
        description="time that a replica gets to finish its clips when stopped; it has up to two, "
        "and 40 guided steps of one take 5 minutes on an H200. What is cut off is tried again",
    )

    @property
    def most_replicas(self) -> int | None:
        """How many replicas of a variant there may be; None: as many as the GPUs allow."""
        return self.autoscaling.max_replicas if self.autoscaling else self.replicas

    @property
    def fewest_replicas(self) -> int:
        """How many replicas of a variant there are at least when nothing is to be done."""
        return self.autoscaling.min_replicas if self.autoscaling else self.replicas or 1


class DepthAutoscalingSettings(AutoscalingSettings):
    """Replicas of the depth estimator follow the images that wait or are worked on."""

    min_replicas: int = Field(
        default=0, ge=0, description="0: the network is loaded when the first image comes"
    )


class DepthSettings(Settings):
    """The deployment that estimates depth, for scenes that bring none."""

    estimator: EstimatorName = "depth_pro"
    source: str | None = Field(
        default=None, description="repository or folder of its weights; null: the published ones"
    )
    device: Literal["cpu", "cuda"] = "cpu"
    torch_threads: int | None = Field(
        default=1,
        ge=1,
        description="CPU threads of one replica, the same in all so that results agree to the "
        "bit; null leaves torch's choice",
    )
    num_cpus: float = Field(default=0.5, gt=0, description="of one replica")
    num_gpus: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of one replica; a part of a GPU is shared with what takes the rest, and "
        "Ray does not keep their memory apart",
    )
    autoscaling: DepthAutoscalingSettings = DepthAutoscalingSettings()
    max_batch_size: int = Field(default=8, ge=1, description="images that a replica takes at once")
    batch_wait_s: float = Field(
        default=0.02, ge=0, description="how long a replica waits for more images of a batch"
    )
    batch_timeout_s: float = Field(
        default=300.0, gt=0, description="a replica whose batch takes longer is stuck and replaced"
    )
    timeout_s: float = Field(
        default=900.0,
        gt=0,
        description="longest time for all images of one question, loading the network included",
    )
    max_attempts: int = Field(default=3, ge=1, description="of an image whose replica died")
    health_check_period_s: float = Field(default=5.0, gt=0)
    graceful_shutdown_timeout_s: float = Field(
        default=30.0, ge=0, description="time that a replica gets to finish a batch when stopped"
    )

    @model_validator(mode="after")
    def _device_has_a_share(self) -> Self:
        if (self.device == "cuda") != (self.num_gpus > 0):
            raise ValueError(
                f"device {self.device} with num_gpus {self.num_gpus:g}: cuda needs a share, "
                "cpu none"
            )
        return self


class ReconstructorSettings(Settings):
    """The deployment of the outputs that take a GPU and further software; one replica at most.

    Each of ``splats`` and ``worldmirror`` that is set is offered: ``splats: {}`` does.
    """

    splats: SplatParameters | None = Field(
        default=None, description="Gaussian splats by gsplat, and how they are trained"
    )
    worldmirror: WorldMirrorSettings | None = Field(
        default=None, description="where HY-World 2.0 is, whose reconstruction is run"
    )
    num_cpus: float = Field(default=1.0, gt=0, description="of the replica")
    num_gpus: float = Field(default=1.0, gt=0, description="of the replica; whole ones above 1")
    min_replicas: int = Field(
        default=0, ge=0, le=1, description="0: its GPUs are free while nobody asks for it"
    )
    downscale_delay_s: float = Field(default=60.0, ge=0)
    timeout_s: float = Field(
        default=7200.0, gt=0, description="longest time of one output, the wait for GPUs included"
    )
    beat_interval_s: float = Field(
        default=2.0, gt=0, le=5, description="running work is heard of at least this often"
    )
    beat_timeout_s: float = Field(
        default=60.0, gt=0, description="running work that is silent for this long is lost"
    )
    stop_timeout_s: float = Field(
        default=10.0, gt=0, description="a replica whose work does not stop by then is replaced"
    )
    max_attempts: int = Field(default=3, ge=1, description="of an output whose replica died")
    retry_delay_s: float = Field(default=1.0, ge=0)
    health_check_period_s: float = Field(default=5.0, gt=0)
    graceful_shutdown_timeout_s: float = Field(
        default=10.0, ge=0, description="time that work gets to stop when the replica is stopped"
    )

    @model_validator(mode="after")
    def _something_to_make(self) -> Self:
        if self.splats is None and self.worldmirror is None:
            raise ValueError("neither splats nor worldmirror is set: nothing would be made")
        return self

    @model_validator(mode="after")
    def _enough_gpus(self) -> Self:
        if self.num_gpus > 1 and self.num_gpus % 1:
            raise ValueError(f"num_gpus {self.num_gpus:g} is neither whole nor at most 1")
        needed = self.worldmirror.gpus if self.worldmirror else 0
        if needed > max(self.num_gpus, 1):
            raise ValueError(
                f"worldmirror.gpus {needed} is above num_gpus {self.num_gpus:g} of the replica"
            )
        return self

    @model_validator(mode="after")
    def _beats_before_timeout(self) -> Self:
        if self.beat_timeout_s < 2 * self.beat_interval_s:
            raise ValueError(
                f"beat_timeout_s {self.beat_timeout_s} is less than two beats "
                f"of {self.beat_interval_s} s"
            )
        return self


class OrchestratorSettings(Settings):
    """Admission, retries and deadlines."""

    num_cpus: float = Field(default=0.1, gt=0)
    bank_num_cpus: float = Field(default=0.05, ge=0, description="of each scene's memory bank")
    bank_idle_s: float | None = Field(
        default=300.0,
        gt=0,
        description="a memory bank that nobody calls for this long gives its memory up, and reads "
        "it from disk when it is called; null: never",
    )
    max_active_scenes: int = Field(
        default=8, ge=1, description="scenes in progress at once, each with one memory bank"
    )
    max_clips_per_scene: int | None = Field(
        default=None, ge=1, description="clips of one scene in flight at once; null: all that fit"
    )
    max_attempts: int = Field(
        default=3, ge=1, description="of a clip whose replica failed under it"
    )
    retry_delay_s: float = Field(default=0.5, ge=0, description="doubles with each attempt")
    beat_interval_s: float = Field(
        default=2.0, gt=0, le=5, description="a running clip is heard of at least this often"
    )
    beat_timeout_s: float = Field(
        default=30.0, gt=0, description="a running clip that is silent for this long is retried"
    )
    plan_timeout_s: float = Field(
        default=600.0, gt=0, description="of building a scene from an image, and of its plan"
    )
    retrieve_timeout_s: float = Field(default=300.0, gt=0)
    commit_timeout_s: float = Field(default=300.0, gt=0)
    outputs_timeout_s: float = Field(
        default=3600.0, gt=0, description="longest time that a scene's outputs may take"
    )
    poll_interval_s: float = Field(
        default=1.0, gt=0, description="how often the store is asked for work nobody told of"
    )
    lease_s: float = Field(
        default=10.0,
        gt=0,
        description="scenes of an orchestrator that is silent for this long are taken over by "
        "another; it renews its leases three times as often",
    )

    @model_validator(mode="after")
    def _beats_before_timeout(self) -> Self:
        if self.beat_timeout_s < 2 * self.beat_interval_s:
            raise ValueError(
                f"beat_timeout_s {self.beat_timeout_s} is less than two beats "
                f"of {self.beat_interval_s} s"
            )
        return self


class AppArgs(Settings):
    """Arguments of the application ``deployments.app:build_app``: ``args`` of serve_config.yaml.

    ``model`` is the name of a file in configs/models, the path of such a file, or its content.
    ``data_dir`` holds uploads, scenes and, unless ``database_url`` is given, the SQLite store.
    """

    model: str | ModelSettings = "worldstereo-tiny"
    variants: tuple[Variant, ...] = Field(
        default=("worldstereo-memory-dmd",),
        min_length=1,
        description="variants to serve, one generator deployment each",
    )
    local_files_only: bool = Field(default=False, description="never ask the Hub for weights")
    data_dir: Path = Path("data")
    database_url: str | None = Field(default=None, description="SQLAlchemy URL")
    service_resource: str | None = Field(
        default=None,
        description="Ray resource of the nodes that ingress and orchestrator may run on, so that "
        "no GPU node is kept by them when its replica has gone; null: any node",
    )
    blobs: BlobSettings | None = Field(
        default=None, description="null: all nodes see data_dir, and the files are there alone"
    )
    generator: GeneratorSettings = GeneratorSettings()
    depth: DepthSettings | None = Field(
        default=None, description="null: depth is not estimated, each scene brings its own"
    )
    reconstructor: ReconstructorSettings | None = Field(
        default=None, description="null: no output that takes a GPU and further software is offered"
    )
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    ingress: IngressSettings = IngressSettings()
    uploads: UploadLimits = UploadLimits()
    auth: AuthSettings = AuthSettings()
    uris: UriSettings = UriSettings()
    retention: RetentionSettings = RetentionSettings()
    logging: LoggingSettings = LoggingSettings()
    tracing: TracingSettings | None = Field(default=None, description="null: no traces")
    webhooks: WebhookSettings | None = Field(
        default=None, description="null: scenes that name a webhook_url are refused"
    )

    @model_validator(mode="after")
    def _outputs_where_clips_are(self) -> Self:
        if self.blobs is not None and self.reconstructor is not None:
            raise ValueError(
                "blobs with reconstructor: it reads and writes results in data_dir, which all "
                "nodes must see; leave blobs out"
            )
        return self

    @model_validator(mode="after")
    def _variants_once(self) -> Self:
        if len(set(self.variants)) != len(self.variants):
            raise ValueError(f"a variant is listed twice: {', '.join(self.variants)}")
        return self


class ClusterSettings(Settings):
    """The machine that an embedded cluster starts on, and the application for it."""

    num_cpus: float | None = Field(
        default=None, gt=0, description="logical CPUs for Ray; null: what the machine has"
    )
    num_gpus: int | None = Field(default=None, ge=0, description="null: what the machine has")
    object_store_memory_bytes: int | None = Field(default=None, ge=80 * MIB)
    http_port: int = Field(default=8000, ge=0, le=65535, description="0: any free port")
    app: AppArgs = AppArgs()
