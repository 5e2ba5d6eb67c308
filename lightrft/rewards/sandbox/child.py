"""The child of `process.py`: it reads pickled questions on stdin, and writes a line of JSON for each to stdout."""

from __future__ import annotations

import json
import os
import pickle
import signal
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any, BinaryIO

from lightrft.errors import error_text
from lightrft.ranks.parent import die_with_parent
from lightrft.rewards.base import MOST_OF_AN_ERROR
from lightrft.rewards.sandbox.confinement import confine

GRACE_S = 1.0  # the parent's own limit comes first, where there still is a parent


def serve(name: str, limits: dict[str, Any], parent: int | None) -> None:
    """parent: the process that is not to be outlived, not even while an answer is judged."""
    if parent is not None:
        die_with_parent(parent)
    for number in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # a parent's choice to ignore it would be inherited
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what libraries print must not look like an answer
    try:
        module = import_module(name)
        getattr(module, "load", lambda: None)()
        _close_streams()
        confine(limits["memory"])
    except Exception as error:
        return _send(answers, {"error": error_text(error, MOST_OF_AN_ERROR)})
    _send(answers, {})
    while size := int.from_bytes(questions.read(8), "big"):
        function, arguments, processor_s = pickle.loads(questions.read(size))
        _send(answers, _answer(module, function, arguments, processor_s, limits["wall_s"]))


def _close_streams() -> None:
    """Nothing is read or printed from here on: the answers that are judged cause warnings too."""
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)


def _answer(
    module: ModuleType, function: str, arguments: Sequence[Any], processor_s: float, wall_s: float
) -> dict[str, Any]:
    signal.setitimer(signal.ITIMER_PROF, processor_s)
    signal.setitimer(signal.ITIMER_REAL, wall_s + GRACE_S)
    try:
        return json.loads(json.dumps({"value": getattr(module, function)(*arguments)}))
    except BaseException as error:  # the library's, for what it cannot judge; it may also exit()
        return {"error": error_text(error, MOST_OF_AN_ERROR)}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _send(answers: BinaryIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer).encode() + b"\n")
