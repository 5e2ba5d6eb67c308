"""One run in a folder at a time: each of its folders holds a file that the run keeps locked until its process ends."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lightrft.errors import Refused, os_errors_as, warn

NAME = ".lock"
PATIENCE_S = 2.0  # a killed process first gives back its memory, then its locks


class FolderLock:
    """Locks a run's folders, made where they are missing; raises `Refused` where a run is in one.

    The system lets go of a lock when its process dies, however that is: a killed run's folder is free at once. One rank
    takes it for all. Where the file system has no locks (some network ones), that is said once, and the run goes on.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        """folders: by the flag that names each."""
        self.folders = dict(zip((os.path.realpath(path) for path in folders.values()), folders.items(), strict=True))

    def __enter__(self) -> FolderLock:
        with ExitStack() as opened:
            without = [path for flag, path in self.folders.values() if not opened.enter_context(_locked(flag, path))]
            self._held = opened.pop_all()
        if without:
            warn(f"the file system of {without[0]} has no locks: start no second run in it")
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()


def check_unused(folders: Mapping[str, Path]) -> None:
    """Raises `Refused` where a run is in one of the folders; makes nothing."""
    for flag, path in folders.items():
        with suppress(OSError):
            descriptor = os.open(path / NAME, os.O_RDWR)
            try:
                _lock(descriptor, flag, path)
            finally:
                os.close(descriptor)


@contextmanager
def _locked(flag: str, path: Path) -> Iterator[bool]:
    """Whether there are locks."""
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    with os_errors_as(Refused, f"--{flag} {path}: it cannot be locked", f"choose another --{flag}"):
        path.mkdir(parents=True, exist_ok=True)
        descriptor, locked = _open(flag, path)
    try:
        yield locked
    finally:
        with suppress(OSError):
            if _is_there(descriptor, path):
                os.unlink(path / NAME)
        os.close(descriptor)
        for folder in made:  # a run that ended before it wrote anything leaves nothing
            with suppress(OSError):
                folder.rmdir()


def _open(flag: str, path: Path) -> tuple[int, bool]:
    """The file, locked. One that its last owner has removed in the meantime does not count."""
    while True:
        descriptor = os.open(path / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            locked = _lock(descriptor, flag, path)
            if _is_there(descriptor, path):
                with suppress(OSError):  # a full disk, whose words are for the run's own files to say
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
                return descriptor, locked
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether the open file is the one that has the name now."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path / NAME))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, flag: str, path: Path) -> bool:
    """False where the file system has no locks."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise Refused(_in_use(descriptor, flag, path)) from None
        except OSError:
            return False
        time.sleep(0.05)


def _in_use(descriptor: int, flag: str, path: Path) -> str:
    process, _, host = os.pread(descriptor, 1 << 10, 0).decode(errors="replace").strip().partition(" ")
    who = f"process {process} on {host}" if host else "another process"
    return f"--{flag} {path} is in use by {who}; wait until that run ends, or choose another --{flag}"
