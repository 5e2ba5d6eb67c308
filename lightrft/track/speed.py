"""How fast the update computes, for perf/: tokens per second, and the share of the device's peak."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lightrft.models.flops import Work
from lightrft.step_index import StepIndex


@dataclass(frozen=True)
class Speed:
    """work: of the policy's passes, None where it is not known. epochs: how often a step's rows are trained on. peak:
    FLOP per second of a device, None where it is not known. sharing: processes that hold the same rows. skips: whether
    rows without an advantage are in no pass, as it is now: a coefficient of the KL may have come to 0."""

    work: Work | None
    epochs: int
    peak: float | None = None
    sharing: int = 1
    skips: Callable[[], bool] = lambda: True

    def __call__(self, index: StepIndex, perf: Mapping[str, float]) -> dict[str, float]:
        """Of this process, in the seconds of the update."""
        seconds = max(perf["perf/update_s"], 1e-9)
        found = {"perf/train_tokens_per_s": perf.get("perf/train_tokens", 0.0) / self.sharing / seconds}
        if self.peak is not None and self.work is not None:
            rows = index.own[index.moves[index.own]] if self.skips() else index.own
            done = self.epochs * self.work.of_rows(index.lengths[rows], index.trained[rows]) / self.sharing
            found["perf/mfu"] = done / seconds / self.peak
        return found
