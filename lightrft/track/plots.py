"""`--plot_every N`: the curves so far, and the distribution of response lengths, as PNG files."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightrft.track.base import Logger
from lightrft.track.metrics_file import read_from
from lightrft.track.samples import Sample
from lightrft.track.step_files import remove_after, write_whole
from lightrft.types import Outcome

PANELS = (("reward/mean", "reward"), ("rollout/length_mean", "response tokens"), ("policy/entropy", "entropy (nats)"))
DRAWN = ("step", *(name for name, _ in PANELS), "eval/accuracy", "eval/ci_low", "eval/ci_high")


class Plots(Logger):
    """Writes `<folder>/curves.png` and `<folder>/length_<step>.png` every `every` steps, and the curves at the end.

    `before` gives the evaluation before training once there is one: it has no line in metrics.jsonl, and a resumed run
    has it from its checkpoint.
    """

    def __init__(
        self, folder: Path, resumed: int, metrics: Path, every: int, before: Callable[[], Mapping[str, float] | None]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        remove_after(folder, resumed)
        self._folder, self._metrics, self._every, self._before = folder, metrics, every, before
        self._rows: list[dict[str, float]] = []
        self._read = 0  # bytes of `metrics`

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        if step % self._every == 0:
            self._curves()

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        if step % self._every:
            return
        figure, axes = _figure(1)
        lengths = [outcome.length for outcome in outcomes]
        axes[0].hist(lengths, bins=min(30, max(lengths) - min(lengths) + 1))
        axes[0].set(title=f"response length, step {step}", xlabel="tokens", ylabel="responses")
        self._save(figure, f"length_{step:06d}.png")

    def close(self) -> None:
        self._curves()

    def _curves(self) -> None:
        new, self._read = read_from(self._metrics, self._read)
        self._rows += [{name: row[name] for name in DRAWN if name in row} for row in new]
        if not self._rows:
            return
        figure, axes = _figure(len(PANELS))
        for axis, (name, title) in zip(axes, PANELS, strict=True):
            points = [(row["step"], row[name]) for row in self._rows if row.get(name) is not None]
            axis.plot([step for step, _ in points], [value for _, value in points], linewidth=1)
            axis.set(title=title, xlabel="step")
        self._evaluations(axes[0])
        self._save(figure, "curves.png")

    def _evaluations(self, axis: Any) -> None:
        before = self._before() or {}
        first = [{"step": 0, **{f"eval/{name}": value for name, value in before.items()}}] if before else []
        rows = [row for row in [*first, *self._rows] if row.get("eval/accuracy") is not None]
        if not rows:
            return
        middle = [row["eval/accuracy"] for row in rows]
        below = [value - row["eval/ci_low"] for value, row in zip(middle, rows, strict=True)]
        above = [row["eval/ci_high"] - value for value, row in zip(middle, rows, strict=True)]
        axis.errorbar([row["step"] for row in rows], middle, yerr=[below, above], fmt="o", capsize=3, label="held out")
        axis.legend()

    def _save(self, figure: Any, name: str) -> None:
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=110)
        write_whole(self._folder / name, drawn.getvalue())


def _figure(columns: int) -> tuple[Any, list[Any]]:
    """A figure outside pyplot: no global state, no display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * columns, 3.2), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])
