"""How a stage is run: on a clock, resumable, with its curve in a file.

Owns the schedule of the learning rates, the step from a loss to new weights, the moving average of
weights, checkpoints, the log, and the arguments that stages share. What is trained, and on what, is
the stages' own.

A stage has minutes, not steps: the learning rate falls with the time that is used, so that a
stage fits a machine that is lent for an hour as well as one that stands under a desk. A run that
was stopped goes on from its last checkpoint with the time that is left.

The networks are so small that a GPU waits for Python most of the time. So a step is recorded once
for each shape of its inputs and then replayed as a CUDA graph.
"""

from __future__ import annotations

import json
import math
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.muon import Muon

STATE, LOG = "state.pt", "log.jsonl"
# Share of the time in which the learning rates rise.
WARM_UP = 0.03
GRADIENT_NORM = 1.0
# Steps that are run as they are before one is recorded.
BEFORE_RECORDING = 3

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Rates:
    """Learning rates.

    Attributes:
        hidden: of Muon, for the matrices between the first layer and the last.
        other: of AdamW, for all other weights.
        decay: weight decay of the matrices.
    """

    hidden: float
    other: float
    decay: float = 0.0


class Run:
    """One stage.

    Args:
        folder: for its checkpoint and log; one with a checkpoint is gone on with.
        model: whose parameters that want gradients are trained.
        loss: a scalar of a step's inputs.
        rates: the highest learning rates.
        minutes: in all, those of an interrupted run included.
        average: weight of the old in the moving average, once it has run for a while.
        save_every_s: how often a checkpoint is written.
    """

    def __init__(
        self,
        folder: Path,
        model: nn.Module,
        loss: Callable[[Inputs], Tensor],
        rates: Rates,
        minutes: float,
        *,
        average: float = 0.999,
        save_every_s: float = 120,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.seconds = folder, 60 * minutes
        self._loss, self._average, self._save_every_s = loss, average, save_every_s
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._averaged = {name: p.detach().clone() for name, p in self._trained.items()}
        self._optimizers = _optimizers(self._trained, rates)
        self._rates = [[group["lr"].clone() for group in o.param_groups] for o in self._optimizers]
        self._recorded: dict[tuple[Any, ...], _Recorded] = {}
        self.step, self._before_s = 0, 0.0
        if (folder / STATE).exists():
            self._resume()
        self._began, self._saved = time.monotonic(), time.monotonic()

    @property
    def used_s(self) -> float:
        """Seconds trained so far, by earlier runs too."""
        return self._before_s + time.monotonic() - self._began

    def steps(self) -> Iterator[int]:
        """Numbers of steps until the time is used; a checkpoint is written at the end."""
        while self.used_s < self.seconds:
            self._set_rates(self.used_s / self.seconds)
            yield self.step
            self.step += 1
            if time.monotonic() - self._saved > self._save_every_s:
                self.save()
        self.save()

    def train(
        self,
        batches: Iterator[Inputs],
        validated: Callable[[], Mapping[str, float]],
        *,
        log_every: int,
        validate_every: int,
    ) -> None:
        """All steps; afterwards the model has its averaged weights, and they are validated.

        Args:
            batches: inputs of the steps, without end.
            validated: scores of the model as it is, by name.
            log_every: steps from one logged loss to the next.
            validate_every: steps from one validation to the next.
        """
        for step in self.steps():
            loss = self.train_on(next(batches))
            if step % log_every == 0:
                self.log(loss=loss.item())
            if step % validate_every == validate_every - 1:
                self.log(**validated())
        self.use_average()
        self.log(**validated())

    def train_on(self, inputs: Inputs) -> Tensor:
        """One step; returns its loss, which the next step may overwrite."""
        if next(iter(inputs.values())).is_cuda:
            key = tuple((name, tuple(value.shape)) for name, value in inputs.items())
            if key not in self._recorded:
                pool = next((r.graph.pool() for r in self._recorded.values()), None)
                self._recorded[key] = _record(self._update, inputs, pool)
            loss = self._recorded[key].replay(inputs)
        else:
            loss = self._update(inputs)
        weight = 1 - min(self._average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self._averaged.values()), list(self._trained.values()), weight
            )
        return loss

    def log(self, **values: float) -> None:
        """Append a line to the stage's log, and print it."""
        line = {"step": self.step, "seconds": round(self.used_s, 1)}
        line |= {name: round(float(value), 6) for name, value in values.items()}
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(self.folder.name, json.dumps(line), flush=True)

    def save(self) -> None:
        """Write the checkpoint; it appears by one rename."""
        state: dict[str, Any] = {
            "model": {name: p.detach() for name, p in self._trained.items()},
            "averaged": self._averaged,
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
            "step": self.step,
            "seconds": self.used_s,
        }
        partial = self.folder / (STATE + ".partial")
        torch.save(state, partial)
        partial.rename(self.folder / STATE)
        self._saved = time.monotonic()

    @torch.no_grad()
    def use_average(self) -> None:
        """Give the model its averaged weights; what was trained is lost but for the checkpoint."""
        for name, parameter in self._trained.items():
            parameter.copy_(self._averaged[name])

    def _update(self, inputs: Inputs) -> Tensor:
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss = self._loss(inputs)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._trained.values(), GRADIENT_NORM)
        for parameter in self._trained.values():
            if parameter.grad is not None:
                # One gradient that is not finite would make every weight so, for good.
                parameter.grad = torch.where(norm.isfinite(), parameter.grad, 0.0)
        for optimizer in self._optimizers:
            optimizer.step()
        return loss.detach()

    def _set_rates(self, share: float) -> None:
        factor = max(1e-3, min(1.0, share / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share)))
        for optimizer, rates in zip(self._optimizers, self._rates, strict=True):
            for group, full in zip(optimizer.param_groups, rates, strict=True):
                group["lr"].copy_(full * factor)

    @torch.no_grad()
    def _resume(self) -> None:
        device = next(iter(self._trained.values())).device
        state = torch.load(self.folder / STATE, map_location=device)
        for name, parameter in self._trained.items():
            parameter.copy_(state["model"][name])
            self._averaged[name].copy_(state["averaged"][name])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step, self._before_s = state["step"], state["seconds"]


@dataclass(frozen=True, eq=False)
class _Recorded:
    """A step on the GPU, and where it reads its inputs and leaves its loss."""

    graph: torch.cuda.CUDAGraph
    inputs: dict[str, Tensor]
    loss: Tensor

    def replay(self, inputs: Inputs) -> Tensor:
        for name, value in inputs.items():
            self.inputs[name].copy_(value)
        self.graph.replay()
        return self.loss


def _record(update: Callable[[Inputs], Tensor], inputs: Inputs, pool: Any) -> _Recorded:
    held = {name: value.clone() for name, value in inputs.items()}
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(BEFORE_RECORDING):
            update(held)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        loss = update(held)
    return _Recorded(graph, held, loss)


def _optimizers(trained: Mapping[str, nn.Parameter], rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon for hidden matrices, AdamW for the first and last layers, gains, biases and tables."""
    hidden = [p for name, p in trained.items() if _is_hidden(name, p)]
    others = [p for name, p in trained.items() if not _is_hidden(name, p)]
    device = others[0].device
    return [
        Muon(hidden, torch.tensor(rates.hidden, device=device), rates.decay),
        torch.optim.AdamW(
            others,
            torch.tensor(rates.other, device=device),
            betas=(0.9, 0.98),
            weight_decay=0.0,
            capturable=device.type == "cuda",
        ),
    ]


def _is_hidden(name: str, parameter: nn.Parameter) -> bool:
    if parameter.ndim not in (2, 4, 5) or min(parameter.shape[:2]) <= 3:
        return False
    return "patch_embedding" not in name and not name.startswith("proj_out.")


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """The averaged weights of a stage that has run, by name, on the CPU.

    Raises:
        FileNotFoundError: it has not run.
    """
    weights: dict[str, Tensor] = torch.load(folder / STATE, map_location="cpu")["averaged"]
    return weights


def stage_arguments(module: str, description: str | None, minutes: float | None) -> ArgumentParser:
    """The arguments that all trained stages have; ``minutes`` is the default, None: told later."""
    parser = ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument("runs", type=Path, help="checkpoints and curves of all stages")
    parser.add_argument("worlds", type=Path, help="scenes of the stage worlds")
    parser.add_argument("--minutes", type=float, default=minutes, help="how long it trains")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser
