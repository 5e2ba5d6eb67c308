"""An engine that lives in a process of its own, asked over a socket one thing at a time.

A library that ends its own process when one of its workers dies, replaces signal handlers or kills every child it finds
does so there, and the trainer hears of it as of any other failure. The process leads a session of its own, so a signal
of the terminal does not reach it, and all that it starts can be ended together; it does not outlive the trainer.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lightrft.errors import RunFailed
from lightrft.ranks.parent import die_with_parent
from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.base import EngineFailed
from lightrft.rollouts.engines.traces import MARK_VARIABLE, new_mark, remove_marked, remove_orphans

PACKAGES = Path(__file__).parents[3]  # the folder that `import lightrft` finds
TORCHRUN = ("TORCHELASTIC_", "GROUP_", "ROLE_")
OF_A_RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LOOK_S, LEAVE_S = 1.0, 20.0  # how often it is looked whether the process is there; how long it may take to leave
MOST_OF_A_LINE = 400
RAISED = re.compile(r"[\w.]*(Error|Exception)\b: |.* crashed with exit code")  # as a traceback ends, or a process


class Host:
    """`python -m module` in a process of its own; module calls `serve`.

    name: of the engine, for messages. settings: what `serve` hands on. variables: of its environment, beside ours.
    given: the end of the line that says why it does not start, which is no `EngineFailed`: it would not the next time.
    """

    def __init__(
        self, name: str, module: str, settings: Mapping[str, Any], variables: Mapping[str, str], given: str = ""
    ) -> None:
        self.name, self.log = name, tempfile.TemporaryFile()  # noqa: SIM115
        self.mark = new_mark()
        remove_orphans()
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(os.getpid())],
                env={**environment(), **variables, MARK_VARIABLE: self.mark},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
                start_new_session=True,
            )
        self.connection, self.started = Connection(ours.detach()), False
        try:
            # tensors in shared memory are fetched from the process that made them, which asks for this key
            self.ask("start", settings, bytes(multiprocessing.current_process().authkey))
            self.started = True
        except EngineFailed as failed:
            told, first = str(failed).removeprefix(f"--engine_type {name}: "), self.first_error()
            why = told if told.startswith(first) else first  # a worker's own error, and not that it is gone
            raise RunFailed(f"--engine_type {name} cannot be started: {why}{given}") from failed
        finally:
            if not self.started:
                self.close()

    def ask(self, what: str, *parts: Any) -> Any:
        """The value that the method `what` returns there. `EngineFailed` where it raises, or its process is gone."""
        self.said = os.fstat(self.log.fileno()).st_size
        try:
            self.connection.send((what, parts))
            while True:
                kind, value = self._next()
                if kind == "done":
                    return value
                if kind == "failed":
                    raise EngineFailed(f"--engine_type {self.name}: {value}")
                PULSE.beat()
        except (EOFError, OSError) as error:
            raise EngineFailed(self._epitaph()) from error

    def _next(self) -> tuple[str, Any]:
        while not self.connection.poll(LOOK_S):
            if self.process.poll() is not None and not self.connection.poll(0):
                raise EOFError
        return self.connection.recv()

    def _epitaph(self) -> str:
        """How the process ended, and what it said last."""
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LOOK_S)
        code = self.process.poll()
        how = (
            "answers no more" if code is None else f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        )
        words = self.first_error() or next(reversed(self._lines()), "none")[:MOST_OF_A_LINE]
        return f"--engine_type {self.name}: its process {how}; its last words: {words}"

    def first_error(self) -> str:
        """What was raised first since it was asked: the rest follows from that. "": nothing that is told."""
        return next((line for line in self._lines() if RAISED.match(line)), "")[:MOST_OF_A_LINE]

    def _lines(self) -> list[str]:
        """What it has said since it was asked."""
        self.log.seek(self.said)
        return [line.strip() for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]

    def close(self) -> None:
        """Lets it leave, and ends whatever of it is still there. A second time it does nothing."""
        with suppress(OSError):
            self.connection.send(("close", ()))
        self.connection.close()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(LEAVE_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the session's other processes, and itself where it is stuck
        self.process.wait()
        self.log.close()
        remove_marked(self.mark)


def environment() -> dict[str, str]:
    """Of such a process. What torchrun tells a rank would make an engine join the trainer's group, or wait for it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(TORCHRUN) and k not in OF_A_RANK}
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [str(PACKAGES), kept.get("PYTHONPATH")]))}


def serve(make: Any) -> None:
    """The other end. make(settings, beat) -> an object whose methods are asked for; beat() says that work goes on.

    What a method raises goes back as text.
    """
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent)
    tempfile.template = os.environ[MARK_VARIABLE]
    connection = Connection(descriptor)
    served: Any = None
    while asked := _received(connection):
        what, parts = asked
        try:
            if what == "start":
                settings, multiprocessing.current_process().authkey = parts
                served, value = make(settings, lambda: connection.send(("beat", None))), None
            else:
                value = getattr(served, what)(*parts)
        except Exception as error:  # the engine's own, of any kind
            traceback.print_exc()
            connection.send(("failed", f"{type(error).__name__}: {' '.join(str(error).split())}"))
        else:
            connection.send(("done", value))
    if served is not None:
        served.close()
    os._exit(0)  # the interpreter would take seconds to put such libraries away


def _received(connection: Connection) -> tuple[str, tuple[Any, ...]] | None:
    """None: nobody will ask any more."""
    with suppress(EOFError):
        what, parts = connection.recv()
        return None if what == "close" else (what, parts)
    return None
