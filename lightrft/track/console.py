"""Live progress: the phase of the step, then one line per step with reward, length, speed and time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TextIO

from lightrft.rewards.base import describe_invalid
from lightrft.track.base import Logger, report_failure
from lightrft.track.samples import Sample
from lightrft.types import Outcome


def duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Console(Logger):
    """Prints a line every `every` steps; on a terminal it shows the current phase in between.

    quiet: only lines given to `always` and `warn` are printed. total_steps: the planned number; the loop corrects it
    where a run ends earlier. silent: nothing is printed at all, on ranks other than the first.
    """

    def __init__(
        self,
        total_steps: int,
        every: int,
        *,
        quiet: bool = False,
        silent: bool = False,
        stream: TextIO | None = None,
    ) -> None:
        self.total_steps, self._every, self._quiet = total_steps, every, quiet
        self._stream = stream or sys.stdout
        self._first_step: int | None = None
        self._started = time.monotonic()
        self._step = 0
        self._broken = silent
        self._all_valid = True

    def always(self, text: str) -> None:
        self._clear()
        self._print(text + "\n")

    def warn(self, text: str) -> None:
        self.always(f"warning: {text}")

    def unless_quiet(self, text: str) -> None:
        if not self._quiet:
            self.always(text)

    def phase(self, name: str) -> None:
        if not self._quiet and self._stream.isatty():
            self._clear()
            self._print(f"step {self._step + 1}/{self.total_steps} {name} ...")

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._step = step
        if self._first_step is None:
            self._first_step = step - 1
            self._started = time.monotonic() - values.get("perf/step_s", 0.0)
        if self._due(step):
            self.unless_quiet(self._line(values, step))

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        """Why samples are invalid: always for the first ones of the run, then under the lines that say how many."""
        reason = describe_invalid(outcomes)
        if reason is not None and (self._due(step) or self._all_valid):
            (self.always if self._all_valid else self.unless_quiet)(f"step {step}: {reason}")
            self._all_valid = False

    def close(self) -> None:
        self._clear()

    def _due(self, step: int) -> bool:
        return step % self._every == 0 or step == self.total_steps

    def _line(self, values: Mapping[str, float], step: int) -> str:
        done = step - (self._first_step or 0)
        left = (time.monotonic() - self._started) / done * (self.total_steps - step)
        parts = [
            f"step {step}/{self.total_steps}",
            f"reward {values['reward/mean']:.3f}",
            f"length {values['rollout/length_mean']:.1f}",
            f"{values.get('perf/tokens_per_s', 0.0):.0f} tokens/s",
            f"{values.get('perf/step_s', 0.0):.1f} s/step",
            f"{duration(left)} left",
        ]
        if values.get("reward/invalid_frac"):
            parts.insert(2, f"invalid {values['reward/invalid_frac']:.0%}")
        if "eval/accuracy" in values:
            parts.insert(2, f"held out {values['eval/accuracy']:.3f}")
        elif "eval/n" in values:
            parts.insert(2, "held out: none could be judged")
        return " | ".join(parts)

    def _clear(self) -> None:
        if self._stream.isatty():
            self._print("\r\033[K")

    def _print(self, text: str) -> None:
        """A full disk or a closed pipe ends the output, not the run."""
        if self._broken:
            return
        try:
            print(text, end="", file=self._stream, flush=True)
        except OSError as error:
            self._broken = True
            report_failure("the console", error)
