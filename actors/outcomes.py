"""What the ranks' parts in one clip mean together: for the clip, and for the worker group.

Owns the rules alone, as a function over what is known of each rank. Finding that out is the
group's part (worker_group.py), acting on it the coordinator's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from actors.messages import ENGINE_FAILED, ClipReport, WorkerLost
from worldstereo.errors import GenerationCancelled, WorldStereoError


@dataclass(frozen=True)
class Gone:
    """A rank whose process has ended, or does not answer."""

    reason: str


@dataclass(frozen=True)
class Unfinished:
    """A rank that is still at work, or stands in an exchange that another one never enters."""


# What is known of one rank's part in a clip.
Outcome = ClipReport | WorldStereoError | Gone | Unfinished


class OutOfStep(Exception):
    """The ranks cannot go on together, and one of them said why the clip fails for good.

    Args:
        error: what it said.
    """

    def __init__(self, error: WorldStereoError) -> None:
        super().__init__(str(error))
        self.error = error


def judge(outcomes: Sequence[Outcome]) -> ClipReport:
    """What became of a clip, from what became of it on each rank, in the order of the ranks.

    ===============================================  ==================  =============
    ranks                                            clip                group
    ===============================================  ==================  =============
    all finished                                     is there            goes on
    one is gone                                      is tried again      is torn down
    rank 0 failed or was cancelled, the others       fails with what     goes on
    stopped with it                                  rank 0 said
    all failed in the same way                       fails with it       goes on
    anything else, and one failed in the engine's    fails with it       is torn down
    own words (out of memory, say)
    anything else                                    is tried again      is torn down
    ===============================================  ==================  =============

    Returns:
        The leader's report.

    Raises:
        WorkerLost: the group is to be torn down, the clip tried again.
        OutOfStep: the group is to be torn down, the clip has failed.
        WorldStereoError: the clip has failed or was cancelled, the group goes on.
    """
    for rank, outcome in enumerate(outcomes):
        if isinstance(outcome, Gone):
            raise WorkerLost("a worker died", where=f"rank {rank}", got=outcome.reason)
    leader, *followers = outcomes
    if isinstance(leader, ClipReport) and all(isinstance(o, ClipReport) for o in followers):
        return leader
    if isinstance(leader, WorldStereoError):
        stopped = all(isinstance(outcome, GenerationCancelled) for outcome in followers)
        if stopped or all(_same(outcome, leader) for outcome in followers):
            raise leader
    raise_out_of_step(outcomes)


def _same(outcome: Outcome, error: WorldStereoError) -> bool:
    # Numbers (bytes that were free, say) may differ from rank to rank.
    return type(outcome) is type(error) and outcome.what == error.what


def raise_out_of_step(outcomes: Sequence[Outcome]) -> NoReturn:
    """WorkerLost, or OutOfStep where a rank has said why the clip fails for good."""
    for outcome in outcomes:
        if isinstance(outcome, WorldStereoError) and not (
            isinstance(outcome, GenerationCancelled) or outcome.what == ENGINE_FAILED
        ):
            raise OutOfStep(outcome)
    said = "; ".join(f"rank {rank}: {_in_words(o)}" for rank, o in enumerate(outcomes))
    raise WorkerLost("the ranks are out of step", got=said)


def _in_words(outcome: Outcome) -> str:
    if isinstance(outcome, ClipReport):
        return "finished"
    return "still at work" if isinstance(outcome, Unfinished) else str(outcome)
