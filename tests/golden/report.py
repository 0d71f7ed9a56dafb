"""One golden case's outcome, how to measure a difference, and what becomes of an error."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from worldstereo.errors import WorldStereoError


@dataclass(frozen=True)
class Options:
    """What the command line chose for all checks."""

    renderer: Literal["torch", "pytorch3d"] = "torch"


@dataclass(frozen=True)
class Case:
    """The largest difference of one case beside what is tolerated (NaN is never tolerated)."""

    name: str
    difference: float
    tolerance: float
    note: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verdict = "ok  " if self.passed else "FAIL"
        note = f"  {self.note}" if self.note else ""
        return (
            f"{verdict} {self.name}: {self.difference:.3g} (tolerance {self.tolerance:.3g}){note}"
        )


def failed(name: str, why: str) -> Case:
    """A case in which nothing could be compared."""
    return Case(name, float("inf"), 0.0, why)


def attempt(name: str, check: Callable[..., Iterator[Case]], *arguments: object) -> Iterator[Case]:
    """The cases that a check finds; a failed one where it finds none or stops with an error.

    What lacks its inputs, or is of a kind that no check knows, so fails under its own name while
    the rest is still checked.
    """
    count = 0
    try:
        for case in check(*arguments):
            count += 1
            yield case
    except Exception as error:  # noqa: BLE001  # whatever stops a case, the others still run
        if not isinstance(error, WorldStereoError):
            traceback.print_exc()
        yield failed(name, f"stopped by {type(error).__name__}: {error}".replace("\n", " "))
        return
    if not count:
        yield failed(name, "nothing is recorded that could be checked")


def relative_difference(actual: torch.Tensor, expected: torch.Tensor) -> torch.Tensor:
    """|difference|, relative where a length is above 1: float32 has no 1e-5 beyond 128."""
    difference = (actual.double() - expected.double()).abs()
    relative = difference / expected.double().abs().clamp(min=1)
    return relative.nan_to_num(nan=float("inf"), posinf=float("inf"))


def largest_length_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """The largest ``relative_difference``; infinity where the shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    return float(relative_difference(actual, expected).max())


def largest_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max |actual - expected|; infinity where the shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual.double() - expected.double()).abs().max())
