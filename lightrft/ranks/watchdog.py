"""A thread of each rank that ends it where the run gets nowhere, or where another rank has failed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lightrft.ranks.children import end_children
from lightrft.ranks.deadline import STUCK, Deadline
from lightrft.ranks.failure import failure_elsewhere, line, say_where, tell_torchrun, world_size
from lightrft.ranks.pulse import PULSE

EVERY_S = 1.0  # it looks this often, or ten times in the seconds allowed
SLACK_S = 5.0  # beyond them the kernel's deadline, for a process in which this thread does not get to run


@contextmanager
def watched(seconds: float | None) -> Iterator[None]:
    """While the run lasts. seconds: without progress of any rank, after which each of them says where it is and ends
    with exit code 3; None = as long as it takes.

    Progress is a pulse (`PULSE.beat`), of whichever rank: one that waits for a slower one is not stuck. Time in which
    this process was stopped (SIGSTOP, a suspended job) does not count.
    """
    if seconds is None and world_size() == 1:
        yield
        return
    watchdog = Watchdog(seconds)
    watchdog.start()
    try:
        yield
    finally:
        watchdog.stop()


class Watchdog(threading.Thread):
    def __init__(self, seconds: float | None) -> None:
        super().__init__(name="watchdog", daemon=True)
        self.seconds, self.every = seconds, min(EVERY_S, (seconds or EVERY_S * 10) / 10)
        self._deadline = None if seconds is None else Deadline(seconds + SLACK_S)
        self._done, self._beats, self._of_all, self._quiet_s = threading.Event(), -1, -1, 0.0

    def stop(self) -> None:
        self._done.set()
        self.join()
        if self._deadline is not None:
            self._deadline.lift()

    def run(self) -> None:
        last = time.monotonic()
        while not self._done.wait(self.every):
            if self._deadline is not None:
                self._deadline.put_off()
            now = time.monotonic()
            self._quiet_s = 0.0 if self._moved() else self._quiet_s + min(now - last, 2 * self.every)
            last = now
            if self.seconds is not None and self._quiet_s > self.seconds:
                self._end_stuck()
            if world_size() > 1 and failure_elsewhere() is not None and not self._done.wait(2 * self.every):
                self._end_after_another()

    def _moved(self) -> bool:
        """Whether any rank has got something done since this was asked last."""
        own, self._beats = PULSE.beats != self._beats, PULSE.beats
        of_all = line().add("moved", int(own)) if world_size() > 1 else None
        others, self._of_all = of_all not in (None, self._of_all), self._of_all if of_all is None else of_all
        return own or others

    def _end_stuck(self) -> None:
        reason = f"no progress for {self._quiet_s:.0f} s (--watchdog_s {self.seconds:g})"
        say_where(reason)
        tell_torchrun(f"{reason}; {PULSE.describe()}")
        time.sleep(3 * self.every)  # until the others have noticed too: torchrun ends them all when the first has ended
        self._end(STUCK)

    def _end_after_another(self) -> None:
        failure = failure_elsewhere()
        assert failure is not None, "it is never taken back"
        tell_torchrun(f"another rank has failed: {failure.text}", late=True)
        self._end(failure.exit_code)

    def _end(self, exit_code: int) -> None:
        end_children()
        os._exit(exit_code)
