"""What a tracker is given, and the list of trackers, in which a broken one stops no training run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lightrft.errors import error_text, warn
from lightrft.track.samples import Sample
from lightrft.types import Outcome


class Logger:
    """Does nothing by itself: a tracker overrides what it is for. Every method may raise, see `Loggers`."""

    def evaluated(self, values: Mapping[str, float]) -> None:
        """The evaluation before the first step; later ones are among the metrics of their step."""

    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        """What came of all rows of the rollout step, whichever rank holds them, and the first of its samples."""

    def close(self) -> None: ...


class Loggers:
    """Calls every logger; one that raises is reported once and left out from then on."""

    def __init__(self, loggers: Sequence[Logger] = ()) -> None:
        self._loggers = list(loggers)

    def add(self, make: Callable[..., Logger], *arguments: Any) -> None:
        """Adds `make(*arguments)`; one that cannot even be made is reported and left out."""
        try:
            self._loggers.append(make(*arguments))
        except Exception as error:
            report_failure(make.__name__, error)

    def evaluated(self, values: Mapping[str, float]) -> None:
        self._each("evaluated", values)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._each("metrics", values, step)

    def rollouts(self, outcomes: Sequence[Outcome], samples: Sequence[Sample], step: int) -> None:
        self._each("rollouts", outcomes, samples, step)

    def close(self) -> None:
        self._each("close")

    def _each(self, method: str, *arguments: object) -> None:
        for logger in list(self._loggers):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                self._loggers.remove(logger)
                report_failure(type(logger).__name__, error)


def report_failure(name: str, error: Exception) -> None:
    warn(f"{name} failed and is off from now on ({error_text(error)})")
