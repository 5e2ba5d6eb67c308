"""The two ways a run ends badly. Both carry one line for the user; neither shows a traceback.

Everything else that escapes is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Refused(Exception):
    """Arguments, data or preflight are refused before anything was written: exit code 2."""

    exit_code = 2


class RunFailed(Exception):
    """The run itself cannot go on, for a reason that lies outside this code: exit code 1."""

    exit_code = 1


@contextmanager
def one_line(kind: type[Refused] | type[RunFailed], what: str, remedy: str) -> Iterator[None]:
    """What the system refuses inside (a full disk, a permission, a path) ends as `kind`: "<what>: <why>; <remedy>"."""
    try:
        yield
    except OSError as error:
        raise kind(f"{what}: {system_says(error)}; {remedy}") from error


def system_says(error: OSError) -> str:
    """Its reason, and the file where one is named."""
    named = f" ({str(error.filename)[:200]})" if error.filename else ""
    return f"{error.strerror or str(error) or type(error).__name__}{named}"
