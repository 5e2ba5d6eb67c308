"""The two ways a run ends badly. Both carry one line for the user; neither shows a traceback.

Everything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Refused(Exception):
    """Arguments, data or preflight are refused before anything was written: exit code 2."""

    exit_code = 2


class RunFailed(Exception):
    """The run itself cannot go on, for a reason that lies outside this code: exit code 1."""

    exit_code = 1


class Damaged(RunFailed):
    """A checkpoint that is not as it was written."""


@contextmanager
def os_errors_as(kind: type[Refused] | type[RunFailed], what: str = "", remedy: str = "") -> Iterator[None]:
    """An `OSError` inside (a full disk, a permission, a path) is raised as `kind`: "<what>: <why>; <remedy>"."""
    try:
        yield
    except OSError as error:
        why = f"{what}: {os_error_text(error)}" if what else os_error_text(error)
        raise kind(f"{why}; {remedy}" if remedy else why) from error


def os_error_text(error: OSError) -> str:
    """The system's reason, and the file where the error names one."""
    file = str(error.filename) if error.filename else ""
    if error.errno == errno.ENAMETOOLONG:
        return f"a path is too long: {file[:60]}...; give a shorter one"
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{reason} ({file})" if file else reason


def error_text(error: BaseException, most: int | None = None) -> str:
    """Kind and text in one line that every console and file can take, whatever the error holds.

    most: characters, where it is not to be longer.
    """
    try:
        text = str(error)
    except Exception:  # users' and libraries' errors too
        text = "its text cannot be made"
    line = " ".join(f"{type(error).__name__}: {text[:most]}".split())[:most]
    return line.encode("utf-8", "backslashreplace").decode()


def is_out_of_memory(error: BaseException) -> bool:
    """Python's memory, a GPU's, or torch's on the CPU, which has no kind of its own for it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def out_of_memory_text(error: BaseException) -> str:
    """With what to do about it."""
    reason = " ".join(str(error).split())[:160] or type(error).__name__
    return f"out of memory: {reason}; lower --micro_train_batch_size, --micro_rollout_batch_size or the lengths"


def warn(text: str) -> None:
    """One line on standard error, of the first process alone. Where that is closed or its disk is full, the line is
    lost and nothing else."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            print(f"warning: {text}", file=sys.stderr, flush=True)
