"""A thread of each rank that ends it where the run gets nowhere, or where another rank has failed."""

from __future__ import annotations

import faulthandler
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightrft.ranks.children import end_children
from lightrft.ranks.deadline import STDERR, STUCK, Deadline
from lightrft.ranks.failure import after_another, failure_elsewhere, line, say_where, tell_torchrun, world_size
from lightrft.ranks.pulse import PULSE

EVERY_S = 1.0  # it looks this often, or ten times in the seconds allowed
AT_LENGTH = ("start", "join", "load", "resume", "engine", "save", "export")  # phases, and what comes after them, that
AT_LENGTH_S = 600.0  # have at least so long: imports, other ranks' arrival, engines, large files give no pulse
AT_THE_DISK = ("load", "resume", "save", "export")  # phases in which what is read and written counts as progress
SLACK_S = 5.0  # beyond them the kernel's deadline, for a process in which this thread does not get to run


@contextmanager
def watched(seconds: float | None) -> Iterator[None]:
    """While the run lasts. seconds: without progress of any rank, after which each of them says where it is and ends
    with exit code 3; None = as long as it takes. Before the first step, while it saves, and at its end the run has ten
    minutes at least.

    Progress is a pulse (`PULSE.beat`), of whichever rank: one that waits for a slower one is not stuck. Time in which
    this process was stopped (SIGSTOP, a suspended job) does not count.
    """
    PULSE.begin()
    if seconds is None and world_size() == 1:
        yield
        return
    if world_size() > 1:
        line()  # here it imports torch, which two threads must not do at once
        faulthandler.enable(STDERR)  # gloo aborts a process that is sent more than it asked for
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
        self._deadline = None if seconds is None else Deadline()
        self._done, self._seen, self._of_all, self._quiet_s = threading.Event(), (-1, 0), -1, 0.0

    def stop(self) -> None:
        self._done.set()
        self.join()
        if self._deadline is not None:
            self._deadline.lift()

    def run(self) -> None:
        last = time.monotonic()
        while not self._done.wait(self.every):
            if self._deadline is not None:
                self._deadline.put_off(self._allowed_s + SLACK_S)
            now = time.monotonic()
            self._quiet_s = 0.0 if self._moved() else self._quiet_s + min(now - last, 2 * self.every)
            last = now
            if self._quiet_s > self._allowed_s:
                self._end_stuck()
            if self._another_failed() and not self._done.wait(2 * self.every) and not PULSE.ends:
                self._end_after_another()

    def _another_failed(self) -> bool:
        """And this one goes on. One that ends by itself has trackers to close, which takes a while."""
        return world_size() > 1 and not PULSE.ends and failure_elsewhere() is not None

    @property
    def _allowed_s(self) -> float:
        seconds = math.inf if self.seconds is None else self.seconds
        at_length = PULSE.ends or PULSE.phase.removeprefix("after ") in AT_LENGTH
        return max(seconds, AT_LENGTH_S) if at_length else seconds

    def _moved(self) -> bool:
        """Whether any rank has got something done since this was asked last."""
        seen = (PULSE.beats, _disk_bytes() if PULSE.phase in AT_THE_DISK else 0)
        own, self._seen = seen != self._seen, seen
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
        tell_torchrun(after_another(failure), late=True)
        self._end(failure.exit_code)

    def _end(self, exit_code: int) -> None:
        end_children()
        os._exit(exit_code)


def _disk_bytes() -> int:
    """Read from disks and written to them by this process; 0 where the system does not tell (elsewhere than Linux)."""
    try:
        rows = dict(row.split(": ") for row in Path("/proc/self/io").read_text().splitlines())
    except OSError:
        return 0
    return int(rows["read_bytes"]) + int(rows["write_bytes"])
