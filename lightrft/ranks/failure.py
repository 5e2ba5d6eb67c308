"""What a rank that fails tells its launcher, the other ranks, and the user."""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.errors import RunFailed, error_text
from lightrft.ranks.deadline import STDERR, STUCK
from lightrft.ranks.pulse import PULSE

if TYPE_CHECKING:
    from lightrft.ranks.store import Line

KEY = "failure"  # in the store
NEWS_S = 3.0  # in which a rank that has failed, and left, is heard of


@dataclass(frozen=True)
class Failure:
    exit_code: int
    text: str


def own_rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """1 also where the environment's is no number, which args/hardware.py refuses."""
    text = os.environ.get("WORLD_SIZE", "")
    return int(text) if text.isascii() and text.isdigit() else 1


def line() -> Line:
    return _line(PULSE.run)


@cache
def _line(run: int) -> Line:
    from lightrft.ranks.store import Line  # imports torch

    return Line(run)


def report_failure(text: str, exit_code: int) -> None:
    """Why this rank ends: for torchrun's report, which would say how to enable tracebacks, and for the other ranks,
    which would wait. To be called before this rank leaves the group, for then they notice that it is gone.

    Where torch is not there yet the ranks of one machine need not be told: torchrun ends them.
    """
    tell_torchrun(text)
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    if world_size() > (1 if "torch" in sys.modules else beside):
        line().set(KEY, json.dumps([exit_code, f"rank {own_rank()}: {text}"]))


def report_error(error: Exception, *, first: bool) -> int:
    """Tells of an error that no user can cause, and returns the exit code; first: none of the ranks has told of it.

    A collective operation fails where another rank has left. That one may have told why; if it was killed, this one
    says where it stood.
    """
    if not is_of_the_group(error):
        if first:
            traceback.print_exception(error)
        report_failure(error_text(error), RunFailed.exit_code)
        return RunFailed.exit_code
    if (failure := _news()) is not None:
        tell_torchrun(after_another(failure), late=True)
        return failure.exit_code
    reason = f"a collective operation failed, as another rank is gone or calls another one: {error_text(error)}"
    say_where(reason, error)
    tell_torchrun(f"{reason}; {PULSE.describe()}", late=True)
    return STUCK


def after_another(failure: Failure) -> str:
    return f"ended because another rank failed; {failure.text}"


def _news() -> Failure | None:
    end = time.monotonic() + NEWS_S
    while (failure := failure_elsewhere()) is None and time.monotonic() < end:
        time.sleep(0.1)
    return failure


def tell_torchrun(text: str, *, late: bool = False) -> None:
    """late: another rank is the cause; torchrun takes the earliest report, in whole seconds, for it."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        return
    extra = {"py_callstack": text, "timestamp": str(int(time.time()) + 2 * late)}
    try:
        Path(file).write_text(json.dumps({"message": {"message": text, "extraInfo": extra}}))
    except OSError:
        return


def failure_elsewhere() -> Failure | None:
    """What another rank has reported."""
    found = line().get(KEY) if world_size() > 1 else None
    return Failure(*json.loads(found)) if found else None


def is_of_the_group(error: BaseException) -> bool:
    """Whether a collective operation failed: another rank is gone, is late, or has called another operation."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in kinds or (isinstance(error, RuntimeError) and "gloo" in str(error))


def say_where(reason: str, error: Exception | None = None) -> None:
    """One line of where this rank is, and why that is told; then the error's traceback, and the Python stacks of the
    other threads."""
    who = f"rank {own_rank()}"
    first = f"error: {who} (process {os.getpid()} on {socket.gethostname()}): {reason}; {PULSE.describe()}"
    stacks = "" if error is None else "".join(traceback.format_exception(error))
    rows = [first, *(f"[{who}] {row}" for row in (stacks + _stacks()).splitlines())]
    written = "".join(f"{row}\n" for row in rows).encode()
    while written:  # os.write takes no lock that a stuck thread could hold
        try:
            written = written[os.write(STDERR, written) :]
        except OSError:
            return


def _stacks() -> str:
    try:
        with tempfile.TemporaryFile() as file:
            faulthandler.dump_traceback(file=file, all_threads=True)
            file.seek(0)
            blocks = file.read().decode("utf-8", "replace").split("\n\n")
    except OSError as error:
        return f"no stacks: {error}"
    return "\n".join(block for block in blocks if not block.startswith("Current thread"))  # which only tells
