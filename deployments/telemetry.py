"""What is told of scenes and clips while they run: metrics, spans and log lines, from one place.

Jobs say what happens; this says it on, in the three forms. Nothing here decides anything.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from worldstereo_client.schemas import SceneStatus, TrajectoryStatus

from actors.log_lines import log_ids
from actors.memory_bank import BankSize
from actors.messages import Committed, Failed, Stopped
from deployments import metrics
from deployments.metrics import NoRecorder, Recorder
from deployments.queries import ServiceLoad
from deployments.tracing import NoTrace, Trace

logger = logging.getLogger(__name__)

# Stages of a clip that the replica's GPUs are used in.
_ON_GPUS = ("encode", "denoise", "decode")


@dataclass(frozen=True)
class Telemetry:
    """Where everything is told.

    Attributes:
        recorder: of metrics.
        trace: of spans.
        gpus: of one replica by variant; 0 on the CPU.
        clock: seconds, from any start.
    """

    recorder: Recorder = field(default_factory=NoRecorder)
    trace: Trace = field(default_factory=NoTrace)
    gpus: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = time.monotonic

    def load(self, load: ServiceLoad, banks: list[BankSize]) -> None:
        """How much there is to do, and what the memory banks hold."""
        set_gauge = self.recorder.set
        set_gauge(metrics.QUEUE_SCENES, load.scenes.get(SceneStatus.QUEUED, 0))
        set_gauge(metrics.QUEUE_AGE, load.oldest_queued_s)
        for state in SceneStatus:
            set_gauge(metrics.SCENES, load.scenes.get(state, 0), state=str(state))
        for clip_state in TrajectoryStatus:
            set_gauge(metrics.CLIPS, load.clips.get(clip_state, 0), state=str(clip_state))
        set_gauge(metrics.BANKS, len(banks))
        set_gauge(metrics.BANK_FRAMES, sum(bank.frames for bank in banks))
        set_gauge(metrics.BANK_BYTES, sum(bank.bytes for bank in banks))


class SceneWatch:
    """A scene that is worked on.

    Args:
        telemetry: where it is told.
        scene_id: of the scene.
        variant: that generates it.
    """

    def __init__(self, telemetry: Telemetry, scene_id: str, variant: str) -> None:
        self.telemetry = telemetry
        self.scene_id = scene_id
        self.variant = variant
        self._span: Any = None
        self._state = "left"  # for another orchestrator
        self._reason: str | None = None

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time in which the scene is worked on here."""
        trace = self.telemetry.trace
        about = {"scene": self.scene_id, "variant": self.variant}
        self._span = trace.start("scene", None, self.scene_id, **about)
        with log_ids(scene=self.scene_id):
            logger.info("scene taken up")
            try:
                yield
            finally:
                fine = self._state in ("completed", "cancelled")
                trace.end(self._span, None if fine else self._reason or self._state)
                logger.info("scene %s", self._state)

    def ended(self, state: SceneStatus, reason: str | None) -> None:
        """The store has it in its last state."""
        self._state, self._reason = str(state), reason
        recorder = self.telemetry.recorder
        recorder.add(metrics.SCENES_ENDED, variant=self.variant, state=self._state)

    @contextmanager
    def clip(self, trajectory_id: str) -> Iterator[ClipWatch]:
        """The time from when a clip may start to its end."""
        trace = self.telemetry.trace
        span = trace.start("trajectory", self._span, self.scene_id, trajectory=trajectory_id)
        watch = ClipWatch(self, span)
        with log_ids(trajectory=trajectory_id):
            try:
                yield watch
            finally:
                watch.leave()
                error = watch.outcome if watch.outcome not in ("committed", "cancelled") else None
                trace.end(span, error, outcome=watch.outcome)


class ClipWatch:
    """One clip of a scene: its attempts, and their stages."""

    def __init__(self, scene: SceneWatch, span: Any) -> None:
        self.outcome = "left"
        self._scene = scene
        self._telemetry = scene.telemetry
        self._span = span
        self._attempt: Any = None
        self._stage: Any = None
        self._stage_name = ""
        self._gpus_since: float | None = None
        self._gpus_s = 0.0

    def started(self, attempt_id: str, number: int) -> None:
        """A replica took the clip."""
        logger.info("attempt %d began", number)
        about: dict[str, str | int] = {"attempt": attempt_id, "number": number}
        self._gpus_since, self._gpus_s = None, 0.0
        self._attempt = self._telemetry.trace.start(
            "attempt", self._span, self._scene.scene_id, **about
        )

    def advanced(self, stage: str) -> None:
        """The attempt is at this stage, as it may have been before."""
        if stage == self._stage_name:
            return
        self._end_stage()
        self._stage_name = stage
        if stage in _ON_GPUS:
            self._gpus_since = self._telemetry.clock()
        self._stage = self._telemetry.trace.start(stage, self._attempt, self._scene.scene_id)

    def attempt_ended(self, last: Committed | Failed | Stopped) -> None:
        """The attempt's last word, whoever said it."""
        self._end_stage()
        outcome, error = _outcome(last), last.error if isinstance(last, Failed) else None
        if isinstance(last, Committed):
            for stage, seconds in last.stage_seconds.items():
                self._telemetry.recorder.observe(
                    metrics.STAGE_SECONDS, seconds, stage=stage, variant=self._scene.variant
                )
            # What the worker measured is nearer the truth than when its signs came here.
            self._gpus_s = sum(last.stage_seconds.get(stage, 0.0) for stage in _ON_GPUS)
        gpus = self._telemetry.gpus.get(self._scene.variant, 0)
        self._telemetry.recorder.add(
            metrics.GPU_SECONDS, self._gpus_s * gpus, variant=self._scene.variant, outcome=outcome
        )
        why = None if error is None else str(error)
        self._telemetry.trace.end(self._attempt, why, outcome=outcome)
        self._attempt = None
        if error is None:
            logger.info("attempt %s", outcome)
        else:
            about = {"error": type(error).__name__}
            logger.warning("attempt %s: %s", outcome, error, extra=about)

    def retried(self, error: Exception) -> None:
        """The clip is queued again, because of this."""
        cause = type(error).__name__
        self._telemetry.recorder.add(metrics.RETRIES, variant=self._scene.variant, cause=cause)

    def ended(self, outcome: str) -> None:
        """The clip is committed, failed, or cancelled."""
        self.outcome = outcome
        self._telemetry.recorder.add(
            metrics.CLIPS_ENDED, variant=self._scene.variant, outcome=outcome
        )
        logger.info("clip %s", outcome)

    def leave(self) -> None:
        """End what an attempt that nobody waits for any more has left open."""
        self._end_stage()
        if self._attempt is not None:
            self._telemetry.trace.end(self._attempt, "left", outcome="left")
            self._attempt = None

    def _end_stage(self) -> None:
        if self._gpus_since is not None:
            self._gpus_s += self._telemetry.clock() - self._gpus_since
            self._gpus_since = None
        if self._stage_name:
            self._telemetry.trace.end(self._stage)
            self._stage, self._stage_name = None, ""


def _outcome(last: Committed | Failed | Stopped) -> str:
    if isinstance(last, Failed):
        return "lost" if last.retry else "failed"
    return "committed" if isinstance(last, Committed) else "cancelled"
