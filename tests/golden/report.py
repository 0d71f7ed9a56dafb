"""One golden case's outcome, and how to measure a difference."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Options:
    """What the command line chose for all checks."""

    renderer: str = "torch"


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


def largest_difference(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """max |actual - expected|; infinity where the shapes differ."""
    if actual.shape != expected.shape:
        return float("inf")
    return float((actual.double() - expected.double()).abs().max())
