"""What this process is doing, for whoever watches it. It costs next to nothing, so it is always kept."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Pulse:
    """`beats` rises with whatever is got done: a phase begins, a token is sampled, a reward is there, a collective
    operation has returned."""

    def __init__(self) -> None:
        self.run = self.beats = 0
        self.begin()

    def begin(self) -> None:
        """Another run of this process; `run` is its number, the same on all ranks."""
        self.run += 1
        self._collective, self._entered, self._returned = "", 0.0, True
        self.ends = False
        self.enter("start")

    def beat(self) -> None:
        self.beats += 1

    def enter(self, phase: str) -> None:
        self.phase, self._part, self._since = phase, "", time.monotonic()
        self.beat()

    def part(self, name: str) -> None:
        """Of the phase: here begins one in which models may send each other what no `collective` shows."""
        self._part, self._since = f" ({name})", time.monotonic()
        self.beat()

    @contextmanager
    def ending(self) -> Iterator[None]:
        """The run has ended, well or not, and this process closes what it has open. The phase stays what it was."""
        self.ends = True
        self.beat()
        yield

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """One that raises is the last: what is told afterwards is told of it."""
        self.enter(phase)
        yield
        self.enter(f"after {phase}")

    @contextmanager
    def collective(self, name: str) -> Iterator[None]:
        """Around an operation in which every rank waits for the others. One that raises has not returned."""
        self._collective, self._entered, self._returned = name, time.monotonic(), False
        yield
        self._returned = True
        self.beat()

    def describe(self) -> str:
        """Phase and last collective operation, in one line."""
        now = time.monotonic()
        phase = f"phase {self.phase}{self._part} for {now - self._since:.0f} s"
        if not self._collective:
            return f"{phase}, no collective operation yet"
        returned = "returned" if self._entered >= self._since else "returned before that"
        state = returned if self._returned else f"has not returned for {now - self._entered:.0f} s"
        return f"{phase}, last collective operation {self._collective} ({state})"


PULSE = Pulse()  # of this process
