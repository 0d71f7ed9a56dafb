"""The service's metrics: their names, labels and units, in one table, and how they are recorded.

Ray's agent on each node exports them to Prometheus with the prefix ``ray_``; docs/metrics.md says
where. The orchestrator alone records them, since it knows of everything: telemetry.py says when.
Labels take few values: ids of scenes, trajectories and attempts are in logs and traces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
        name: as it is recorded; exported as ``exported``.
        kind: of Prometheus.
        description: what is counted or measured, its unit in the name.
        labels: all that it has.
        boundaries: of a histogram's buckets.
    """

    name: str
    kind: Literal["gauge", "counter", "histogram"]
    description: str
    labels: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    @property
    def exported(self) -> str:
        """The name that Prometheus sees; a histogram's series add _bucket, _count, _sum."""
        return f"ray_{self.name}"


_STAGE_BOUNDARIES = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)

QUEUE_SCENES = Metric("worldstereo_queue_scenes", "gauge", "scenes that wait to be begun")
QUEUE_AGE = Metric(
    "worldstereo_queue_oldest_age_seconds",
    "gauge",
    "how long the oldest waiting scene has waited; 0 where none waits",
)
SCENES = Metric("worldstereo_scenes", "gauge", "scenes in the store by state", ("state",))
CLIPS = Metric(
    "worldstereo_clips", "gauge", "clips by state, of scenes that have not ended", ("state",)
)
SCENES_ENDED = Metric(
    "worldstereo_scenes_ended_total",
    "counter",
    "scenes that ended, by the state that they ended in",
    ("variant", "state"),
)
CLIPS_ENDED = Metric(
    "worldstereo_clips_ended_total",
    "counter",
    "clips that were committed, failed or were cancelled",
    ("variant", "outcome"),
)
STAGE_SECONDS = Metric(
    "worldstereo_stage_seconds",
    "histogram",
    "stages of committed clips",
    ("stage", "variant"),
    _STAGE_BOUNDARIES,
)
GPU_SECONDS = Metric(
    "worldstereo_gpu_seconds_total",
    "counter",
    "time of GPUs that clips were generated on: seconds times GPUs of a replica, lost attempts "
    "included",
    ("variant", "outcome"),
)
RETRIES = Metric(
    "worldstereo_retries_total",
    "counter",
    "attempts that were lost and made again, by the class of their error",
    ("variant", "cause"),
)
BANKS = Metric("worldstereo_memory_banks", "gauge", "memory banks that are open")
BANK_FRAMES = Metric("worldstereo_memory_bank_frames", "gauge", "frames in all memory banks")
BANK_BYTES = Metric(
    "worldstereo_memory_bank_bytes", "gauge", "bytes of the images of frames in all memory banks"
)
WEBHOOKS = Metric(
    "worldstereo_webhook_requests_total",
    "counter",
    "requests to webhooks: delivered, failed (tried again) or given_up",
    ("outcome",),
)

METRICS = (
    QUEUE_SCENES,
    QUEUE_AGE,
    SCENES,
    CLIPS,
    SCENES_ENDED,
    CLIPS_ENDED,
    STAGE_SECONDS,
    GPU_SECONDS,
    RETRIES,
    BANKS,
    BANK_FRAMES,
    BANK_BYTES,
    WEBHOOKS,
)


class Recorder(Protocol):
    """Takes values; labels must be those of the metric."""

    def set(self, gauge: Metric, value: float, **labels: str) -> None:
        """The value of a gauge now."""
        ...

    def add(self, counter: Metric, value: float = 1, **labels: str) -> None:
        """Raise a counter."""
        ...

    def observe(self, histogram: Metric, value: float, **labels: str) -> None:
        """One observation of a histogram."""
        ...


class NoRecorder:
    """Where nobody asks for metrics."""

    def set(self, gauge: Metric, value: float, **labels: str) -> None:
        """As ``Recorder``."""

    def add(self, counter: Metric, value: float = 1, **labels: str) -> None:
        """As ``Recorder``."""

    def observe(self, histogram: Metric, value: float, **labels: str) -> None:
        """As ``Recorder``."""


class RayRecorder:
    """Records with Ray, in the process of an actor."""

    def __init__(self) -> None:
        from ray.util import metrics

        self._metrics: dict[str, Any] = {}
        for metric in METRICS:
            about = {"description": metric.description, "tag_keys": metric.labels}
            if metric.kind == "gauge":
                made = metrics.Gauge(metric.name, **about)
            elif metric.kind == "counter":
                made = metrics.Counter(metric.name, **about)
            else:
                bounds = list(metric.boundaries)
                made = metrics.Histogram(metric.name, boundaries=bounds, **about)
            self._metrics[metric.name] = made

    def set(self, gauge: Metric, value: float, **labels: str) -> None:
        """As ``Recorder``."""
        self._metrics[gauge.name].set(value, tags=labels)

    def add(self, counter: Metric, value: float = 1, **labels: str) -> None:
        """As ``Recorder``."""
        if value > 0:  # Ray takes no other
            self._metrics[counter.name].inc(value, tags=labels)

    def observe(self, histogram: Metric, value: float, **labels: str) -> None:
        """As ``Recorder``."""
        self._metrics[histogram.name].observe(value, tags=labels)
