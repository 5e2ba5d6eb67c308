"""An engine in a process of its own: what it answers, how it fails, and that nothing of it stays behind."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import gettempdir

import pytest

from lightrft.errors import RunFailed
from lightrft.ranks.pulse import PULSE
from lightrft.rollouts.engines.base import EngineFailed
from lightrft.rollouts.engines.hosted import Host

ROOT = Path(__file__).parents[3]
SERVED = "tests.unit.rollouts.served"


@pytest.fixture
def host():
    made = Host("x", SERVED, {"size": 3}, {"OF_ITS_OWN": "1"})
    yield made
    made.close()


def ended(process: int, within: float = 5.0) -> bool:
    """Gone, or a zombie that nobody has waited for."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        status = Path(f"/proc/{process}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


def children() -> list[str]:
    return [child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()]


def test_it_answers_and_its_work_counts_as_progress(host):
    beats = PULSE.beats
    assert host.ask("setting", "size") == 3
    host.ask("beats", 4)
    assert PULSE.beats == beats + 4


def test_what_a_method_raises_is_a_failure_of_one_line_and_the_process_goes_on(host):
    with pytest.raises(EngineFailed, match=r"^--engine_type x: RuntimeError: two lines$"):
        host.ask("fail")
    assert host.ask("setting", "size") == 3


def test_a_process_that_dies_is_a_failure_that_tells_how_and_with_which_words(host):
    with pytest.raises(EngineFailed, match=r"was ended by signal 9; its last words: SomeError: no memory$"):
        host.ask("die")
    with pytest.raises(EngineFailed, match="was ended by signal 9"):
        host.ask("setting", "size")


@pytest.mark.parametrize("fails, why", [("raises", "ValueError: it cannot be made"), ("dies", "SomeError: no memory")])
def test_one_that_cannot_be_started_says_why_leaves_no_process_and_is_not_tried_again(fails, why):
    """`EngineFailed` would be tried again on a fresh one. Whichever way it ends, what was raised first is told."""
    before = children()
    with pytest.raises(RunFailed, match=rf"^--engine_type x cannot be started: {why}; given 1$") as told:
        Host("x", SERVED, {"fails": fails}, {}, "; given 1")
    assert told.type is RunFailed and children() == before


def test_closing_ends_what_the_process_has_started_too(host):
    other = host.ask("start_another")
    host.close()
    assert host.process.returncode == 0 and ended(other)
    host.close()


def test_it_does_not_outlive_who_asks_not_even_in_the_middle_of_its_work():
    code = f"""from lightrft.rollouts.engines.hosted import Host
import os, signal
host = Host("x", "{SERVED}", {{}}, {{}})
print(host.process.pid, flush=True)
host.connection.send(("work_long", ()))
os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -9 and ended(int(done.stdout))


def left(mark: str) -> list[str]:
    return [path.name for folder in ("/dev/shm", gettempdir()) for path in Path(folder).iterdir() if mark in path.name]


def test_what_its_process_leaves_in_memory_and_among_temporary_files_goes_when_it_is_closed(host):
    host.ask("leave_files")
    with pytest.raises(EngineFailed):
        host.ask("die")
    assert len(left(host.mark)) == 3
    host.close()
    assert left(host.mark) == []


def test_what_a_killed_one_has_left_goes_when_the_next_is_started(host):
    """Not what a living process has there, and not what is another namespace's."""
    code = f"""from lightrft.rollouts.engines.hosted import Host
import os, signal
host = Host("x", "{SERVED}", {{}}, {{}})
host.ask("leave_files")
print(host.mark, flush=True)
os.kill(os.getpid(), signal.SIGKILL)"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    killed = done.stdout.strip()
    assert len(left(killed)) == 3
    elsewhere = Path("/dev/shm", killed.replace(killed.split("-")[1], "1"))
    elsewhere.touch()
    host.ask("leave_files")
    Host("x", SERVED, {}, {}).close()
    try:
        assert left(killed) == [] and len(left(host.mark)) == 3 and elsewhere.exists()
    finally:
        elsewhere.unlink()


def test_it_hears_nothing_of_torchrun(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "TORCHELASTIC_USE_AGENT_STORE", "GROUP_RANK"):
        monkeypatch.setenv(name, "1")
    made = Host("x", SERVED, {}, {"OF_ITS_OWN": "1"})
    seen = made.ask("variables")
    made.close()
    assert not [
        name for name in seen if name in ("RANK", "WORLD_SIZE") or name.startswith(("TORCHEL", "MASTER", "GROUP"))
    ]
    assert seen["OF_ITS_OWN"] == "1"
