"""Standard output and standard error that never end a run."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


@contextmanager
def steady_streams() -> Iterator[None]:
    """A character that the encoding cannot hold is written as an escape; output for a reader who has gone is dropped.

    Without the latter Python reports the closed pipe once more while it shuts down, and exits with 120.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                _empty(stream)


def _open_closed_streams() -> None:
    """After `>&-` the first file that a run opens would become its standard output, and take what libraries print."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free: this one
            if getattr(sys, name) is None:
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _empty(stream: TextIO) -> None:
    try:
        stream.flush()
    except (OSError, ValueError):  # ValueError: the stream is closed already
        if not stream.closed:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
