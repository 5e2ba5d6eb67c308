"""A child process that compares answers, so that no response can stop, fill or end the run.

A response such as `9**9**9**9` keeps the comparison inside one call of the interpreter, where neither a Python signal
handler (math-verify's own limit) nor a thread can interrupt it. The child has a limit that the kernel keeps: when its
processor time for one answer is used up, it is ended, and the next answer gets a new child. Processor time, so that a
busy machine changes no verdict. The child also ends when its input does, however this process ends.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import signal
import subprocess
import sys
from functools import cache
from threading import Lock

from lightrft.rewards.base import one_line
from lightrft.rewards.math_answers import judge

LIMIT_S = 5.0  # of processor time, for one answer; what is not hostile takes about 0.01
LIMIT_BYTES = 4 << 30  # of address space
CODE = "import sys; sys.path[:] = {path!r}; from lightrft.rewards.math_process import serve; serve()"


class MathProcess:
    """Asks `judge` in a child process, which is started when it is first needed."""

    def __init__(self, limit_s: float = LIMIT_S) -> None:
        self._limit_s = limit_s
        self._child: subprocess.Popen[str] | None = None
        self._lock = Lock()

    def judge(self, response: str, reference: str, boxed_only: bool) -> float:
        """As `math_answers.judge`; raises `ValueError` for what it raises, and where the limits end it."""
        with self._lock:
            answer = self._ask(json.dumps([self._limit_s, response, reference, boxed_only]))
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer["score"]

    def _ask(self, question: str) -> dict:
        child = self._child or self._start()
        assert child.stdin is not None and child.stdout is not None
        try:
            child.stdin.write(question + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
        except BrokenPipeError:
            answer = ""
        return json.loads(answer) if answer else {"error": self._why_it_ended(child)}

    def _start(self) -> subprocess.Popen[str]:
        # A session of its own: Ctrl-C ends the run after its step, and the child with it.
        self._child = subprocess.Popen(
            [sys.executable, "-c", CODE.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        return self._child

    def _why_it_ended(self, child: subprocess.Popen[str]) -> str:
        self.close()
        if child.returncode == -signal.SIGPROF:
            return f"the answer could not be compared within {self._limit_s:g} s of processor time"
        return f"comparing the answer ended the process that does it (exit code {child.returncode})"

    def close(self) -> None:
        if self._child is not None:
            self._child.communicate()  # closes its input, and waits for its end
            self._child = None


@cache
def shared_process() -> MathProcess:
    """One for all rules of this process."""
    process = MathProcess()
    atexit.register(process.close)
    return process


def serve() -> None:
    """The child: a question a line on stdin, an answer a line on stdout."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # a parent's choice to ignore it would be inherited
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not look like an answer
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    import math_verify  # noqa: F401  # now, outside of the first answer's time

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we took its limit away
    for line in sys.stdin:
        limit_s, *question = json.loads(line)
        print(json.dumps(_answer(limit_s, question)), file=answers, flush=True)


def _answer(limit_s: float, question: list) -> dict:
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    try:
        return {"score": judge(*question)}
    except Exception as error:  # the library's, for what it cannot compare
        return {"error": str(error) if isinstance(error, ValueError) else one_line(error)[:200]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
