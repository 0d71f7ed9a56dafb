"""What the processes tell each other about one clip; plain values, no behaviour.

A generator replica answers one ``ClipRequest`` with a stream: ``Started``, then any number of
``Advanced``, ``Beat`` and ``Paused``, then exactly one of ``Committed``, ``Failed`` and
``Stopped``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from worldstereo.errors import WorldStereoError

Stage = Literal["retrieve", "encode", "denoise", "decode", "commit"]

# What a worker says of an exception that is not the engine's own: it may be anything, also that
# another rank has gone.
ENGINE_FAILED = "the engine failed"


class WorkerLost(WorldStereoError):
    """A worker died, or stopped showing progress; its group is gone and comes up anew."""


class MemoryBankLost(WorldStereoError):
    """A scene's memory bank did not answer; it is rebuilt from the committed clips on disk."""


@dataclass(frozen=True)
class ClipRequest:
    """One attempt to generate and commit one clip.

    Attributes:
        attempt_id: unique; cancelling and progress go by it.
        epoch: of the orchestrator that asks; the bank drops attempts of an earlier one.
        trajectory_id: ``view/name`` in the scene of ``bank``.
        bank: actor handle of the scene's memory bank.
        num_inference_steps, guidance_scale: None where the variant's published value holds.
    """

    attempt_id: str
    epoch: str
    trajectory_id: str
    bank: Any
    num_inference_steps: int | None = None
    guidance_scale: float | None = None


@dataclass(frozen=True)
class Started:
    """A replica took the clip; ``worker`` is the actor handle to cancel it at."""

    worker: Any


@dataclass(frozen=True)
class Advanced:
    """A stage began (``step`` 0), or step ``step`` of ``steps`` of it is done."""

    stage: Stage
    step: int = 0
    steps: int = 0


@dataclass(frozen=True)
class Beat:
    """Nothing new, but the replica, its worker or the bank is at work."""


@dataclass(frozen=True)
class Paused:
    """The clip waits where it last advanced to, until what ``error`` says has passed."""

    error: WorldStereoError


@dataclass(frozen=True)
class Committed:
    """The clip is in the memory bank and on disk; ``first`` is False if it was there before."""

    first: bool
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Failed:
    """The clip was not generated; ``retry`` tells whether the cause lies outside the clip."""

    error: WorldStereoError
    retry: bool


@dataclass(frozen=True)
class Stopped:
    """The clip was cancelled, and no device works on it any more."""


Message = Started | Advanced | Beat | Paused | Committed | Failed | Stopped


@dataclass(frozen=True)
class ClipReport:
    """What a worker knows about a clip that it generated."""

    stage_seconds: Mapping[str, float]


@dataclass(frozen=True)
class WorkerState:
    """Answer to a ping; ``signs`` counts all signs of progress that the worker ever showed."""

    pid: int
    attempt_id: str | None
    signs: int


@dataclass(frozen=True)
class Preparation:
    """What became of a clip's preparation: already ``committed``, or ready to generate."""

    committed: bool
