"""Real processes that get stuck, or whose parent is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

WAIT_S = 60  # far above what anything here takes
FOR_EVER = {
    "a program in a loop": "while True: pass",
    "asleep in the kernel": "time.sleep(3600)",
    "a pattern that lets no other thread run": "re.match('(a+)+$', 'a' * 99 + 'b')",
}
STUCK = """
import re, sys, time
import lightrft.ranks.watchdog as watchdog
from lightrft.ranks.pulse import PULSE

def reward():
    {stuck}

watchdog.SLACK_S = 0.5
with watchdog.watched(0.5):
    PULSE.enter("score")
    for _ in range(10):  # one second in all, and twice as long as is allowed without progress
        time.sleep(0.1)
        PULSE.beat()
    PULSE.enter("generate")
    print("on", flush=True)
    reward()
"""


def run(code: str, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def is_alive(process: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(process: int) -> bool:
    end = time.monotonic() + WAIT_S
    while is_alive(process) and time.monotonic() < end:
        time.sleep(0.01)
    return not is_alive(process)


def test_a_process_that_is_stuck_tells_where_and_ends_with_3():
    started = {name: run(STUCK.format(stuck=stuck)) for name, stuck in FOR_EVER.items()}
    for name, process in started.items():
        out, err = process.communicate(timeout=WAIT_S)
        assert (process.returncode, out) == (3, "on\n"), (name, err)
        assert "in reward" in err, name
        by_thread = "error: rank 0 (process " in err
        assert by_thread == ("no other thread" not in name), err
        if by_thread:
            assert "no progress for 1 s (--watchdog_s 0.5); phase generate for " in err
            assert "no collective operation yet" in err and err.count("_stacks") == 0


def test_an_engine_may_take_longer_to_start_than_a_step_may():
    started = run("""
import time
import lightrft.ranks.watchdog as watchdog
from lightrft.ranks.pulse import PULSE

with watchdog.watched(0.2):
    with PULSE.during("load"), PULSE.during("engine"):
        time.sleep(1.0)
""")
    assert started.communicate(timeout=WAIT_S)[1] == "" and started.returncode == 0


def test_a_watch_that_is_over():
    """Also the kernel's: nothing ends the process any more, and SIGQUIT is what it was."""
    code = """
import signal, time
import lightrft.ranks.watchdog as watchdog
watchdog.SLACK_S = 0.2
for _ in range(2):
    with watchdog.watched(0.3):
        pass
time.sleep(1)
print("on", flush=True)
signal.raise_signal(signal.SIGQUIT)
"""
    process = run(code)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out, err) == (-signal.SIGQUIT, "on\n", "")


def test_time_in_which_a_process_is_stopped_does_not_count():
    """Four times as long as the watchdog and the kernel allow; then it goes on for as long again."""
    code = """
import time
import lightrft.ranks.watchdog as watchdog
from lightrft.ranks.pulse import PULSE
watchdog.SLACK_S = 0.2
with watchdog.watched(0.3):
    PULSE.enter("generate")
    time.sleep(0.1)  # the deadline has been put off for this phase
    print("on", flush=True)
    for _ in range(10):
        PULSE.beat()
        time.sleep(0.1)
"""
    process = run(code)
    assert process.stdout is not None and process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    process.send_signal(signal.SIGCONT)
    _, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, err) == (0, "")


def test_a_save_and_the_end_of_a_run_may_take_long():
    """A flush gives no sign of life, nor does a tracker that sends what it has kept."""
    code = """
import time
import lightrft.ranks.watchdog as watchdog
from lightrft.ranks.pulse import PULSE
with watchdog.watched(0.2):
    PULSE.enter("generate")
    with PULSE.during("save"):
        time.sleep(1)
    PULSE.enter("generate")
    with PULSE.ending():
        time.sleep(1)
"""
    process = run(code)
    assert process.communicate(timeout=WAIT_S) == ("", "") and process.returncode == 0


def test_a_rank_that_ends_by_itself_closes_what_it_has_open():
    """Rank 1 had nothing to close, and has told why it failed before rank 0, which fails as well, is through."""
    code = """
import os, socket, time
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    os.environ.update(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free.getsockname()[1]))
from datetime import timedelta
from torch.distributed import TCPStore
from lightrft.ranks.failure import KEY, line
from lightrft.ranks.pulse import PULSE
import lightrft.ranks.watchdog as watchdog

watchdog.EVERY_S = 0.2
store = TCPStore("127.0.0.1", int(os.environ["MASTER_PORT"]), is_master=True, timeout=timedelta(seconds=5))
with watchdog.watched(None):
    line().set(KEY, '[1, "rank 1: no reward"]')
    with PULSE.ending():
        time.sleep(1.5)  # the other's failure is looked for each 0.2 s, and 0.4 s more are waited
        print("closed", flush=True)
with watchdog.watched(None):  # one that goes on learns of it
    line().set(KEY, '[1, "rank 1: no reward"]')
    time.sleep(30)
"""
    process = run(code)
    out, err = process.communicate(timeout=WAIT_S)
    assert (process.returncode, out) == (1, "closed\n"), err


@pytest.mark.parametrize("killed_first", (False, True))
def test_no_process_outlives_its_parent(tmp_path, killed_first):
    """Also where the parent is gone before the child asks for that."""
    child = f"""
import os, sys, time
from pathlib import Path
parent, folder = os.getppid(), Path({str(tmp_path)!r})
(folder / "started").touch()
while {killed_first} and os.getppid() == parent: time.sleep(0.01)
from lightrft.ranks.parent import die_with_parent
die_with_parent(parent)
(folder / "asked").touch()
time.sleep(3600)
"""
    family = "import subprocess, sys; c = subprocess.Popen([sys.executable, '-c', sys.argv[1]]); print(c.pid); "
    parent = run(f"{family} sys.stdout.flush(); c.wait()", child)
    assert parent.stdout is not None
    process = int(parent.stdout.readline())
    while not (tmp_path / ("started" if killed_first else "asked")).exists():
        assert is_alive(process)
        time.sleep(0.01)
    parent.kill()
    parent.wait()
    assert ends(process)
    assert (tmp_path / "asked").exists() is not killed_first


def test_only_under_torchrun(monkeypatch):
    from lightrft.ranks import parent

    asked = []
    monkeypatch.setattr(parent, "die_with_parent", asked.append)
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    parent.die_with_launcher()
    assert not asked, "a run that a shell has started may outlive it"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    parent.die_with_launcher()
    assert asked == [os.getppid()]


def test_children_are_ended_with_theirs():
    code = """
import subprocess, sys
from lightrft.ranks.children import end_children
inner = "import subprocess, time; print(subprocess.Popen(['sleep', '3600']).pid, flush=True); time.sleep(3600)"
child = subprocess.Popen([sys.executable, "-c", inner], stdout=subprocess.PIPE, text=True, start_new_session=True)
print(child.pid, int(child.stdout.readline()), flush=True)
end_children()
print(child.wait(), flush=True)
"""
    process = run(code)
    out, err = process.communicate(timeout=WAIT_S)
    child, grandchild, code_of_child = map(int, out.split())
    assert code_of_child == -signal.SIGKILL, err
    assert ends(child) and ends(grandchild)
