"""Seconds per phase of a step, for perf/, the live line and the watchdog."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightrft.ranks.pulse import PULSE


class Clock:
    """`with clock("generate"):` adds to that phase; `lap()` returns the phases since the last lap, and their sum."""

    def __init__(self, announce: Callable[[str], None] = lambda phase: None) -> None:
        self._announce = announce
        self._seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._announce(phase)
        start = time.perf_counter()
        try:
            with PULSE.during(phase):
                yield
        finally:
            self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start

    def lap(self) -> dict[str, float]:
        now = time.perf_counter()
        metrics = {f"perf/{phase}_s": seconds for phase, seconds in self._seconds.items()}
        metrics["perf/step_s"] = now - self._started
        self._seconds, self._started = {}, now
        return metrics
