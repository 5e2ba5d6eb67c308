"""What a turn of the loop measured: sums over micro-batches, optimizer steps and ranks, divided once."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lightrft.algorithms.functional import masked
from lightrft.ranks.base import Ranks
from lightrft.strategy.base import StepReport


@dataclass(frozen=True)
class UpdateReport:
    """Metrics of all optimizer steps of one turn of the loop, and counters of work for perf/."""

    metrics: dict[str, float]
    perf: dict[str, float]

    @property
    def taken(self) -> float:
        """Optimizer steps less those that were skipped or had nothing to learn from."""
        steps, *less = (self.metrics.get(f"update/{name}_steps", 0.0) for name in ("optimizer", "skipped", "idle"))
        return steps - sum(less)


class MetricSums:
    """Numerators and denominators, summed over micro-batches, steps and ranks, divided once."""

    def __init__(self) -> None:
        self.numerator: dict[str, Tensor] = {}
        self.denominator: dict[str, Tensor] = {}
        self.maximum: dict[str, Tensor] = {}
        self.every: dict[str, list[Tensor]] = {}
        self.local: dict[str, list[float]] = {}
        self.counters: dict[str, float] = {}

    def add(self, name: str, value: Tensor) -> None:
        """A sum over ranks and micro-batches, averaged over optimizer steps at the end."""
        self.numerator[name] = self.numerator.get(name, 0.0) + value.detach().double()

    def mean(self, name: str, values: Tensor, mask: Tensor) -> None:
        self.add(name, masked(values.detach().double(), mask).sum())
        self.denominator[name] = self.denominator.get(name, 0.0) + mask.sum().double()

    def restart(self, name: str) -> None:
        self.numerator.pop(name, None)
        self.denominator.pop(name, None)

    def largest(self, name: str, value: Tensor) -> None:
        value = value.detach().double()
        self.maximum[name] = value if name not in self.maximum else torch.maximum(self.maximum[name], value)

    def p99(self, name: str, values: Tensor, mask: Tensor) -> None:
        """Of all numbers where the mask is 1, on all ranks: the smallest that 99 % of them do not exceed. Every rank
        calls it as often."""
        self.every.setdefault(name, []).append(values.detach().float().masked_fill(mask == 0, math.nan).flatten())

    def average(self, name: str, value: float) -> None:
        """Numbers that are equal on all ranks: a plain mean over the optimizer steps."""
        self.local.setdefault(name, []).append(value)

    def count(self, name: str, value: float) -> None:
        """The same on every rank, but for perf/: that is the work of this one."""
        self.counters[name] = self.counters.get(name, 0.0) + value

    def most(self, name: str, value: float) -> None:
        """Of perf/: the largest of this rank."""
        self.counters[name] = max(self.counters.get(name, 0.0), value)

    def stepped(self, model: str, report: StepReport) -> None:
        """One optimizer step of "policy" or "critic"; the norm of a gradient that is not finite says nothing."""
        self.count("update/skipped_steps" if model == "policy" else "critic/skipped_steps", float(report.skipped))
        self.average(f"{model}/lr", report.lr)
        if not report.skipped:
            self.average(f"{model}/grad_norm", report.grad_norm)

    def not_finite(self, ranks: Ranks) -> set[str]:
        """Names of the sums that are NaN or infinite so far, on any rank."""
        return set(ranks.gather([name for name, value in self.numerator.items() if not value.isfinite()]))

    def finish(self, ranks: Ranks) -> UpdateReport:
        steps = max(self.counters.get("update/optimizer_steps", 0.0), 1.0)
        sums = ranks.reduce(_everywhere(self.numerator, ranks, 0.0))
        counts = ranks.reduce(_everywhere(self.denominator, ranks, 0.0))
        over = {name: float(counts.get(name, steps)) for name in sums}
        metrics = {name: float(value) / over[name] for name, value in sums.items() if over[name] > 0}
        metrics |= {
            name: float(value)
            for name, value in ranks.reduce(_everywhere(self.maximum, ranks, -math.inf), "max").items()
        }
        metrics |= {name: _p99(ranks.concatenate(torch.cat(parts))) for name, parts in self.every.items()}
        metrics |= {name: sum(values) / len(values) for name, values in self.local.items()}
        perf = {name: value for name, value in self.counters.items() if name.startswith("perf/")}
        metrics |= {name: value for name, value in self.counters.items() if name not in perf}
        return UpdateReport(dict(sorted(metrics.items())), perf)


def _p99(values: Tensor) -> float:
    """Of those that are numbers; 0 where none is."""
    found = values[~values.isnan()]
    return float(found.kthvalue(math.ceil(0.99 * len(found))).values) if len(found) else 0.0


def _everywhere(values: dict[str, Tensor], ranks: Ranks, fill: float) -> dict[str, Tensor]:
    """The same names in the same order on all ranks: a loss may measure something on some micro-batches alone."""
    blank = next(iter(values.values()), torch.zeros((), dtype=torch.float64)).new_full((), fill)
    return {name: values.get(name, blank) for name in sorted(set(ranks.gather(list(values))))}
