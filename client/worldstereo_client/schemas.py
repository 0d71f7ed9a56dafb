"""The wire contract of the HTTP API; the server imports these very classes.

Times are seconds since the epoch (UTC), durations seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_VARIANT = "worldstereo-memory-dmd"

# What a scene's result can hold beside its clips; ``GET /v1/models`` says what a server offers.
Output = Literal[
    "points",
    "glb",
    "colmap",
    "transforms",
    "inria",
    "blender",
    "depth",
    "worldmirror",
    "splats",
    "worldmirror_results",
]
# Those of them that take a GPU and further software.
GpuOutput = Literal["splats", "worldmirror_results"]
GPU_OUTPUTS: tuple[GpuOutput, ...] = ("splats", "worldmirror_results")
DEFAULT_OUTPUTS: tuple[Output, ...] = ("colmap", "transforms")


class Wire(BaseModel):
    """Base of everything on the wire: immutable; unknown fields of a newer server are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SceneStatus(StrEnum):
    """States of a scene."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the scene stays in this state."""
        return self in (self.COMPLETED, self.FAILED, self.CANCELLED)


class TrajectoryStatus(StrEnum):
    """States of a trajectory (one clip)."""

    BLOCKED = "blocked"  # waits for a dependency
    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    SKIPPED = "skipped"  # a dependency failed
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether the trajectory stays in this state."""
        return self in (self.COMPLETED, self.FAILED, self.SKIPPED, self.CANCELLED)


class TrajectorySpec(BaseModel):
    """A camera path by its preset: ``{"preset": "orbit", "azimuth": 30, "name": "right"}``.

    Which fields a preset takes is in ``worldstereo_client.trajectories``; the server checks them.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    preset: str
    name: str | None = None


class BuildRequest(BaseModel):
    """How a scene is built from one image; sent with the part ``image`` instead of ``scene``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(min_length=1, max_length=20_000, description="what the scene shows")
    kind: Literal["perspective", "panorama"] = Field(
        default="perspective", description="panorama: an equirectangular image, twice as wide"
    )
    trajectories: tuple[TrajectorySpec, ...] = Field(
        default=(), description="empty: the published four, or a panorama's own"
    )
    field_of_view: float | None = Field(
        default=None,
        ge=5,
        le=160,
        description="horizontal, in degrees; null: what the depth estimator finds, else 60",
    )
    clearance: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="how near a path may come to the points, as a share of the median depth",
    )


class SceneRequest(BaseModel):
    """Parameters of a new scene; sent as the JSON part ``parameters`` beside its file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
        description="name of the result folder; default: the archive's",
    )
    variant: str = DEFAULT_VARIANT
    task_type: Literal["auto", "single_view", "reconstruction", "panorama"] = Field(
        default="auto", description="the layout that the folder must have; auto takes any"
    )
    seed: int = Field(default=1024, ge=0, lt=2**63)
    align_nframe: int = Field(default=8, ge=1)
    max_reference: int = Field(default=8, ge=1)
    num_inference_steps: int | None = Field(default=None, ge=1, le=1000)
    guidance_scale: float | None = Field(default=None, ge=0, le=100)
    renderer: Literal["torch", "pytorch3d"] = "torch"
    priority: int = Field(
        default=0,
        ge=-100,
        le=100,
        description="of waiting scenes the highest goes first; an API key may allow less",
    )
    build: BuildRequest | None = Field(
        default=None, description="of a scene that is built from one image"
    )
    outputs: tuple[Output, ...] = Field(
        default=DEFAULT_OUTPUTS, description="what the result holds beside its clips"
    )


class UriSubmission(BaseModel):
    """JSON body of a submission whose files the server reads itself, from an address it allows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str = Field(
        min_length=1,
        max_length=2048,
        description="https:// or s3://: a zip, tar or tar.gz of a scene folder; or an image, with "
        "parameters that say how to build from it",
    )
    parameters: SceneRequest = SceneRequest()


class Problem(Wire):
    """RFC 9457 problem body (``application/problem+json``).

    ``error`` is the name of the exception class; the parts of its message follow it.
    """

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str | None = None
    error: str
    what: str | None = None
    where: str | None = None
    got: str | None = None
    allowed: str | None = None
    fix: str | None = None


class TrajectoryInfo(Wire):
    """One trajectory as it stands."""

    id: str = Field(description="view/name")
    position: int = Field(description="canonical position in the scene, from 0")
    status: TrajectoryStatus
    depends_on: list[str]
    stage: str | None = Field(
        default=None, description="retrieve, encode, denoise, decode, commit while in progress"
    )
    step: int = 0
    steps: int = 0
    attempt: int = 0
    started_at: float | None = None
    finished_at: float | None = None
    stage_seconds: dict[str, float] = Field(default_factory=dict)
    error: Problem | None = None


class SceneUrls(Wire):
    """Paths of a scene's resources, relative to the server's root."""

    self: str
    events: str
    cancel: str
    artefacts: str


class Scene(Wire):
    """One scene as it stands."""

    id: str
    name: str
    status: SceneStatus
    parameters: SceneRequest
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    progress: float = Field(ge=0, le=1, description="share of trajectories done, steps counted")
    queue_position: int | None = Field(
        default=None, description="scenes in front of this one while it is queued"
    )
    trajectories: list[TrajectoryInfo]
    error: Problem | None = None
    urls: SceneUrls


class SceneSummary(Wire):
    """One row of the list of scenes."""

    id: str
    name: str
    status: SceneStatus
    variant: str
    created_at: float
    finished_at: float | None = None
    progress: float


class ScenePage(Wire):
    """A page of scenes, newest first; ``next_cursor`` is None on the last."""

    scenes: list[SceneSummary]
    next_cursor: str | None = None


class Event(Wire):
    """One event of a scene. ``id`` grows by one within a scene, from 1, without gaps.

    ``type`` is ``scene`` (``status`` changed), ``trajectory`` (its ``status`` changed) or
    ``progress`` (``stage`` and step ``step`` of ``steps``: of a trajectory, or of the scene
    itself while it is built or its outputs are made).
    """

    id: int
    time: float
    type: Literal["scene", "trajectory", "progress"]
    status: str | None = None
    trajectory: str | None = None
    stage: str | None = None
    step: int | None = None
    steps: int | None = None
    error: Problem | None = None


class Artefact(Wire):
    """A file of a scene's result; ``name`` is its path in the result folder."""

    name: str
    kind: Literal["manifest", "video", "frame", "cameras", "references", "plan", "file"]
    media_type: str
    bytes: int
    sha256: str
    url: str


class ArtefactList(Wire):
    """All files of a scene that are there so far."""

    artefacts: list[Artefact]


class ModelInfo(Wire):
    """A variant that this server offers."""

    id: str = Field(description="the variant's name, as in SceneRequest.variant")
    source: str = Field(description="repository or folder that the weights come from")
    nframe: int
    sizes: list[tuple[int, int]] = Field(description="working sizes [height, width]")
    num_inference_steps: int
    guidance_scale: float | None
    ready: bool = Field(description="whether a replica can take a clip now")


class ModelList(Wire):
    """The variants that this server offers, and what else it can do."""

    models: list[ModelInfo]
    depth_estimator: str | None = Field(
        default=None, description="of scenes that bring no depth; null: they must"
    )
    outputs: list[str] = Field(default_factory=list, description="what ``outputs`` may name")


class Health(Wire):
    """Answer of /healthz and /readyz."""

    status: Literal["ok", "not_ready"]
    reason: str | None = None
