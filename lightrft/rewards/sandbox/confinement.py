"""What a process that judges answers is no longer allowed to do, from before the first one on.

Three walls, from the inside to the outside:

* *The answer is no program.* Some verifiers hand an answer to `eval`, most by way of sympy's parser. Only what computes
  is evaluated: numbers, lists, texts, unknowns of one letter, sympy's own functions and constants; no attributes, no
  imports, no names of the verifier's own (`entry["answer"]` is no answer). Else the verifier gets a
  `PermissionError`, and most then find the answer wrong.
* *Python's own events* (PEP 578), on every system: no file is opened for writing or removed, no process or connection
  is made. That stops whatever goes through the interpreter, not what a compiled library does.
* *The kernel.* Address space everywhere but on macOS; files of length 0; and on Linux (x86-64 and ARM64) system calls
  that write to files, make processes or connections or reach other processes fail (`system_calls.py`).
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from lightrft.rewards.sandbox.system_calls import forbid_system_calls

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
READING = {"os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr", "os.listxattr"}
REFUSED = {"os", "subprocess", "socket", "shutil", "ctypes", "fcntl", "resource", "pty", "gc", "syslog", "winreg"}
REFUSED_ALONE = {"sys.addaudithook", "sys.settrace", "sys.setprofile", "code.__new__", "builtins.breakpoint"}
PURE = frozenset({"abs", "complex", "divmod", "float", "int", "max", "min", "pow", "round", "sum"})  # of Python
FUNCTIONS = {"cbrt", "real_root", "root", "sqrt"}  # of sympy, that are no classes
STDLIB = sysconfig.get_paths()["stdlib"] + os.sep


def confine(memory: int) -> None:
    """For the rest of this process's life. `memory`: bytes of address space beyond what is loaded already."""
    _limit(memory)
    forbid_system_calls()
    sys.addaudithook(_refusing(_names_of_mathematics()))


def _limit(memory: int) -> None:
    import resource

    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_FSIZE: 0}
    if sys.platform == "linux":
        loaded = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        limits[resource.RLIMIT_AS] = loaded + memory
    for kind, value in limits.items():
        most = resource.getrlimit(kind)[1]
        value = value if most == resource.RLIM_INFINITY else min(value, most)
        resource.setrlimit(kind, (value, value))


def _refusing(names: frozenset[str]) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "exec":
            if not _computes(arguments[0], names) and not _by_a_library(sys._getframe(1)):
                raise PermissionError("an answer is not run as a program")
        elif event == "open":
            if (arguments[2] or 0) & WRITING:
                raise PermissionError("nothing is written while an answer is judged")
        elif event in REFUSED_ALONE or (event.partition(".")[0] in REFUSED and event not in READING):
            raise PermissionError(f"{event} is not allowed while an answer is judged")

    return hook


def _computes(code: CodeType, names: frozenset[str]) -> bool:
    """Whether the code can do nothing but compute: what it names, attributes among it, is mathematics or a letter."""
    named = (name in names or len(name) == 1 for name in code.co_names)
    return all(named) and not any(isinstance(part, CodeType) for part in code.co_consts)


def _names_of_mathematics() -> frozenset[str]:
    sympy = sys.modules.get("sympy")
    if sympy is None:
        return PURE
    kinds = (sympy.Basic, type(sympy.true))
    ours = {
        name
        for name, value in vars(sympy).items()
        if isinstance(value, kinds) or (isinstance(value, type) and issubclass(value, kinds))
    }
    return frozenset(PURE | ours | FUNCTIONS | {"sympy"})  # its parser runs "from sympy import *"


def _by_a_library(frame: FrameType) -> bool:
    """Whether a library runs code of its own: while it is imported, as dataclasses do, and sympy outside its parser."""
    caller = frame.f_code.co_filename
    if caller.startswith(STDLIB) and "site-packages" not in caller:
        return True
    if f"{os.sep}sympy{os.sep}" in caller and f"{os.sep}parsing{os.sep}" not in caller:
        return True
    return any(name.startswith("<frozen importlib") for name in _files(frame))


def _files(frame: FrameType | None) -> Iterator[str]:
    while frame is not None:
        yield frame.f_code.co_filename
        frame = frame.f_back
