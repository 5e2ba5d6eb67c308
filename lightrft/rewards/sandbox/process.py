"""Code that others wrote judges what a model wrote: in a child process with limits, so that no answer can stop the run.

A response such as `9**9**9**9` keeps a verifier inside one call of the interpreter, where neither a Python signal
handler nor a thread can interrupt it. The child has a limit that the kernel keeps: when its processor time for one
answer is used up, it is ended, and the next answer gets a new child. One such answer is seldom alone in its batch, so
the next hundred have less time, which is more than an ordinary one takes (0.4 s where it is the first to need a library
of its task). Processor time, so that a busy machine changes no verdict; a second, longer limit of wall-clock time is
for a child that waits and computes nothing. `confinement.py` says what the child may do to the machine. It ends when
this process does, however that happens.
"""

from __future__ import annotations

import atexit
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from threading import Lock, current_thread, main_thread
from typing import Any

GRACE_S = 1.0
HURRIED = 100  # answers, judged or not: after them slow but honest ones get their time again
START_S = 600.0  # for the imports, once, also from a slow network disk
CODE = """import sys
sys.path[:] = {path!r}
from lightrft.rewards.sandbox.child import serve
serve({module!r}, {limits!r}, {parent!r})"""
# Nothing else is inherited: keys and tokens are in other variables. One thread, and sets in one order in every child.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME")
OURS = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class Unjudged(Exception):
    """No verdict; the text is the reason that the invalid sample gets."""


@dataclass(frozen=True)
class Limits:
    """For one answer, which takes milliseconds. `memory`: bytes of address space beyond what the libraries take.

    `hurried_s`: instead of `processor_s` for the `HURRIED` answers after one that used `processor_s` up.
    """

    processor_s: float = 5.0
    hurried_s: float = 1.0
    wall_s: float = 30.0
    memory: int = 4 << 30


class Sandbox:
    """Calls functions of one module in a child process, which is started when it is first needed.

    The child imports the module, calls its `load()` if there is one, and then gives up what it may do.
    """

    def __init__(self, module: str, limits: Limits | None = None) -> None:
        self._module, self._limits = module, limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = Lock()
        self._hurried = 0  # so many of the next answers
        self._processor_s = self._limits.processor_s  # what the present answer has

    def ask(self, function: str, *arguments: Any, what: str) -> Any:
        """What `function(*arguments)` returns, which has to fit into JSON; the arguments are pickled.

        Raises `Unjudged` where the function raises or a limit ends it. `what` names the work, for the message.
        """
        with self._lock:
            if self._child is not None and self._child.poll() is not None:
                self.close()  # it died between two answers: this one has nothing to do with it
            try:
                answer = self._ask(self._child or self._start(), function, arguments)
            except TimeoutError:
                self.close()
                raise Unjudged(f"{what} took more than {self._limits.wall_s:g} s") from None
            except BaseException:  # an answer that is on its way must not be taken for the next one's
                self.close()
                raise
            if answer is None:
                raise Unjudged(f"{what} {self._why_it_ended()}")
        if "error" in answer:
            raise Unjudged(answer["error"])
        return answer["value"]

    def _ask(self, child: subprocess.Popen[bytes], function: str, arguments: Sequence[Any]) -> dict | None:
        assert child.stdin is not None
        self._processor_s = self._next_limit()
        question = pickle.dumps((function, arguments, self._processor_s))
        with suppress(BrokenPipeError):
            child.stdin.write(len(question).to_bytes(8, "big") + question)
        return _read(child, self._limits.wall_s)

    def _next_limit(self) -> float:
        usual, hurried = self._limits.processor_s, self._hurried > 0
        self._hurried -= hurried
        return min(self._limits.hurried_s, usual) if hurried else usual

    def _start(self) -> subprocess.Popen[bytes]:
        path = [os.path.abspath(folder) for folder in sys.path]
        lasting = current_thread() is main_thread()  # another's end would be taken for this process's
        parent = os.getpid() if lasting else None
        code = CODE.format(path=path, module=self._module, limits=asdict(self._limits), parent=parent)
        environment = {name: os.environ[name] for name in INHERITED if name in os.environ}
        # A session of its own: Ctrl-C ends the run after its step, and the child with it.
        self._child = subprocess.Popen(
            [sys.executable, "-s", "-B", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env={**environment, **OURS},
            cwd="/",
            start_new_session=True,
        )
        ready = _read(self._child, START_S)
        if ready is None or "error" in ready:
            reason = ready["error"] if ready else self._why_it_ended()
            self.close()
            raise Unjudged(f"the process that judges answers does not start: {reason}")
        return self._child

    def _why_it_ended(self) -> str:
        assert self._child is not None
        child = self._child
        with suppress(subprocess.TimeoutExpired):  # it may have closed its end and go on
            child.wait(GRACE_S)
        self.close()
        code = child.returncode
        if code == -signal.SIGPROF:
            if self._processor_s == self._limits.processor_s:
                self._hurried = HURRIED
            return f"took more than {self._processor_s:g} s of processor time"
        return f"ended its process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"

    def close(self) -> None:
        """Ends the child; the next question starts another."""
        child, self._child = self._child, None
        if child is not None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.communicate()


def _read(child: subprocess.Popen[bytes], seconds: float) -> dict | None:
    """The child's next line; None where it has ended. Raises `TimeoutError`."""
    assert child.stdout is not None
    line, end, waiting = b"", time.monotonic() + seconds, select.poll()
    waiting.register(child.stdout, select.POLLIN)
    while not line.endswith(b"\n"):
        if not waiting.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError
        piece = os.read(child.stdout.fileno(), 1 << 16)
        if not piece:
            return None
        line += piece
    return json.loads(line)


@cache
def sandbox(module: str) -> Sandbox:
    """This process's sandbox for the functions of a module."""
    child = Sandbox(module)
    atexit.register(child.close)
    return child
