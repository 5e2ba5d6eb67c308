"""The two ways a run ends badly. Both carry one line for the user; neither shows a traceback.

Everything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Refused(Exception):
    """Arguments, data or preflight are refused before anything was written: exit code 2."""

    exit_code = 2


class RunFailed(Exception):
    """The run itself cannot go on, for a reason that lies outside this code: exit code 1."""

    exit_code = 1


@contextmanager
def one_line(kind: type[Refused] | type[RunFailed], what: str = "", remedy: str = "") -> Iterator[None]:
    """What the system refuses inside (a full disk, a permission, a path) ends as `kind`: "<what>: <why>; <remedy>"."""
    try:
        yield
    except OSError as error:
        why = f"{what}: {system_says(error)}" if what else system_says(error)
        raise kind(f"{why}; {remedy}" if remedy else why) from error


def system_says(error: OSError) -> str:
    """Its reason, and the file where one is named."""
    file = str(error.filename) if error.filename else ""
    if error.errno == errno.ENAMETOOLONG:
        return f"a path is too long: {file[:60]}...; give a shorter one"
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    return f"{reason} ({file})" if file else reason


def out_of_memory(error: BaseException) -> bool:
    """Of Python, of a GPU, or of torch on the CPU, which has no kind of its own for it."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or "can't allocate memory" in str(error)


def warn(text: str) -> None:
    """One line on standard error; one that is closed, or a full disk, ends what is told and nothing else."""
    with suppress(OSError):
        print(f"warning: {text}", file=sys.stderr, flush=True)
