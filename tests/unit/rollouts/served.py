"""What the tests of engines/hosted.py let a process of its own serve."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightrft.rollouts.engines.hosted import serve
from lightrft.rollouts.engines.traces import MARK_VARIABLE


class Served:
    def __init__(self, settings: Mapping[str, Any], beat: Callable[[], None]) -> None:
        self.settings, self.beat = settings, beat
        if settings.get("fails") == "dies":
            self.die()
        if settings.get("fails"):
            raise ValueError("it cannot\nbe made")

    def setting(self, name: str) -> Any:
        return self.settings[name]

    def variables(self) -> dict[str, str]:
        return dict(os.environ)

    def beats(self, times: int) -> None:
        for _ in range(times):
            self.beat()

    def fail(self) -> None:
        raise RuntimeError("two\nlines")

    def leave_files(self) -> None:
        """As libraries do."""
        handle, _ = tempfile.mkstemp()
        os.close(handle)
        Path(tempfile.mkdtemp(), "x").touch()
        Path("/dev/shm", f"x_{os.environ[MARK_VARIABLE]}1").touch()

    def die(self) -> None:
        print("SomeError: no memory\nafter it", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

    def work_long(self) -> None:
        time.sleep(600)

    def start_another(self) -> int:
        """One that takes no notice of a polite signal."""
        code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(600)"
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    def close(self) -> None: ...


if __name__ == "__main__":
    serve(Served)
