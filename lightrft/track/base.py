"""The logger protocol, and the fan-out that keeps a broken logger from stopping a training run."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from lightrft.types import Rollout


class Logger(Protocol):
    def metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def rollouts(self, rollouts: Sequence[Rollout], step: int) -> None: ...

    def close(self) -> None: ...


class Loggers:
    """Calls every logger; one that raises is reported once and left out from then on."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = list(loggers)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        self._each("metrics", values, step)

    def rollouts(self, rollouts: Sequence[Rollout], step: int) -> None:
        self._each("rollouts", rollouts, step)

    def close(self) -> None:
        self._each("close")

    def _each(self, method: str, *arguments: object) -> None:
        for logger in list(self._loggers):
            try:
                getattr(logger, method)(*arguments)
            except Exception as error:
                self._loggers.remove(logger)
                name, text = type(logger).__name__, " ".join(f"{type(error).__name__}: {error}".split())
                print(f"warning: {name} failed and is off from now on ({text})", file=sys.stderr, flush=True)
