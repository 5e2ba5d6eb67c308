"""One run in a folder at a time, whatever ended the one before."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys

import pytest

from lightrft.errors import Refused
from lightrft.loop import lock
from lightrft.loop.lock import FolderLock, check_unused

HOLDS = """
import sys
from pathlib import Path
from lightrft.loop.lock import FolderLock
with FolderLock({"save_path": Path(sys.argv[1])}):
    print("locked", flush=True)
    input()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has locked `run`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(tmp_path / "run")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE_S", 0.1)


def names(path):
    return sorted(entry.name for entry in path.iterdir())


@pytest.mark.parametrize("way", ("run", "linked", "."))
def test_a_folder_in_use_is_refused_by_name_process_and_host(tmp_path, monkeypatch, holder, impatient, way):
    """Also under another name; nothing is made, in the other folders either."""
    (tmp_path / "linked").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    path = tmp_path / way if way != "." else tmp_path / "run" / way
    for locks in (check_unused, lambda folders: FolderLock(folders).__enter__()):
        with pytest.raises(Refused) as refused:
            locks({"log_dir": tmp_path / "new", "save_path": path})
        assert str(refused.value) == (
            f"--save_path {path} is in use by process {holder.pid} on {socket.gethostname()}; "
            "wait until that run ends, or choose another --save_path"
        )
        assert names(tmp_path) == ["linked", "run"] and names(tmp_path / "run") == [".lock"]


def test_a_killed_run_s_folder_is_free_at_once(tmp_path, holder):
    folders = {"save_path": tmp_path / "run"}
    holder.send_signal(signal.SIGKILL)
    with FolderLock(folders):
        assert (tmp_path / "run/.lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    check_unused(folders)


def test_what_a_run_locked_and_never_used_goes_with_it(tmp_path):
    folders = {
        "save_path": tmp_path / "a/run",
        "ckpt_path": tmp_path / "a/run/checkpoints",
        "log_dir": tmp_path / "a/run",
    }
    with FolderLock(folders):
        assert names(tmp_path / "a/run") == [".lock", "checkpoints"]
    assert names(tmp_path) == []
    with FolderLock(folders):
        (tmp_path / "a/run/summary.json").write_text("")
    assert names(tmp_path / "a/run") == ["summary.json"]


def test_a_lock_file_that_its_owner_removes_is_nobody_s(tmp_path, monkeypatch):
    """The owner ends between our opening of its file and our locking of it: a third run would make another file."""
    real, folders = fcntl.flock, {"save_path": tmp_path}

    def flock(descriptor, how):
        real(descriptor, how)
        if not seen:
            seen.append(os.unlink(tmp_path / ".lock"))

    seen = []
    monkeypatch.setattr(fcntl, "flock", flock)
    with FolderLock(folders), pytest.raises(Refused, match=f"in use by process {os.getpid()} on "):
        monkeypatch.setattr(lock, "PATIENCE_S", 0.1)
        FolderLock(folders).__enter__()


def test_without_locks_it_is_said_once_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    def flock(descriptor, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    folders = {"save_path": tmp_path / "run", "log_dir": tmp_path / "logs"}
    with FolderLock(folders):
        check_unused(folders)
    said = f"warning: the file system of {tmp_path}/run has no locks: start no second run in it\n"
    assert capsys.readouterr().err == said
