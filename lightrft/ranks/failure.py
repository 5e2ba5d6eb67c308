"""What a rank that fails tells its launcher, the other ranks, and the user: why, and once."""

from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lightrft.ranks.deadline import STDERR
from lightrft.ranks.pulse import PULSE
from lightrft.ranks.store import Line

KEY = "failure"  # in the store


@dataclass(frozen=True)
class Failure:
    exit_code: int
    text: str


def own_rank() -> int:
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", 1))


@cache
def line() -> Line:
    return Line()


def report_failure(text: str, exit_code: int) -> None:
    """Why this rank ends: in torchrun's report, where a line that says how to enable tracebacks stood; and to the other
    ranks, which would wait for it. Before this rank leaves the group, for then they notice that it is gone."""
    if world_size() > 1:
        line().set(KEY, json.dumps([exit_code, f"rank {own_rank()}: {text}"]))
    tell_torchrun(text)


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


def is_first_to_say(text: str) -> bool:
    """Whether none of the ranks that one torchrun has started has said the same: what all of them find is said once."""
    file = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not file:
        return True
    said = Path(file).parent.parent / f"said-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    try:
        said.touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True
    return True


def is_of_the_group(error: BaseException) -> bool:
    """Whether a collective operation failed: another rank is gone, is late, or has called another operation."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return "DistError" in kinds or (isinstance(error, RuntimeError) and "gloo" in str(error))


def say_where(reason: str) -> None:
    """One line of where this rank is, and why that is told; then the Python stacks of its threads."""
    who = f"rank {own_rank()}"
    first = f"error: {who} (process {os.getpid()} on {socket.gethostname()}): {reason}; {PULSE.describe()}"
    rows = [first, *(f"[{who}] {row}" for row in _stacks().splitlines())]
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
    if threading.current_thread() is not threading.main_thread():
        blocks = [block for block in blocks if not block.startswith("Current thread")]  # this one, which only tells
    return "\n".join(blocks)
