"""Signals ask for a stop; the loop looks after each step whether one did."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from lightrft.ranks.pulse import PULSE


class StopRequest:
    """SIGTERM, SIGINT and SIGHUP ask for a stop at the next step boundary; a second SIGINT stops at once.

    SIGHUP comes when a terminal closes or an ssh connection is lost. Where it is ignored, as under nohup, it stays so.
    `name` is the signal that came, or None.
    """

    def __init__(self) -> None:
        self.name: str | None = None

    def listen(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._note)

    def _note(self, number: int, frame: object) -> None:
        if self.name is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.name = signal.Signals(number).name
        again = "; once more to stop at once, unsaved" if number == signal.SIGINT else ""
        if os.environ.get("RANK", "0") != "0":  # whichever rank it came to: the first says what becomes of it
            return
        with suppress(OSError):  # a closed stderr must not keep the run from saving
            what = "closing what is open" if PULSE.ends else "stopping after this step"
            os.write(2, f"\n{self.name}: {what}{again}\n".encode())  # print is not safe here
