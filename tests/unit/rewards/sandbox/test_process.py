"""Functions that do what answers make verifiers do, in a real child."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from threading import Thread

import pytest

from lightrft.rewards.sandbox.process import HURRIED, Limits, Sandbox, Unjudged

WORK = r'''
import _posixsubprocess, ctypes, mmap, os, socket, subprocess, sys, threading, time
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
CALLS = [LIBC.open, LIBC.fork, LIBC.socket, LIBC.unlink, LIBC.kill, LIBC.mkdir, LIBC.rename, LIBC.system]
LARGE = mmap.mmap(-1, 1 << 30)  # a library that takes more than an answer may

def echo(value): return value
def kinds(value): return repr(value)
def environment(): return dict(os.environ)
def fail(): raise KeyError("x" * 5000 + "\ud800")
def leave(): sys.exit(3)
def for_ever(): 9**9**9**9
def asleep(): time.sleep(3600)
def ignored():
    import signal
    signal.signal(signal.SIGPROF, signal.SIG_IGN)
    while True: pass
def killed(): os.abort()
def deaf():
    os.closerange(3, 100)
    time.sleep(3600)
def much(size): return len(bytearray(size))
def run(text): return eval(text)
def not_json(): return {1, 2}
def raw(number, *arguments):
    """A call that no Python hook sees."""
    return CALLS[number](*arguments)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("work")
    (path / "sandboxed_work.py").write_text(WORK)
    return path


@pytest.fixture(scope="module")
def child(folder):
    sys.path.insert(0, str(folder))
    os.environ["SOME_API_KEY"] = "secret"
    with closing(Sandbox("sandboxed_work", Limits(processor_s=0.5, wall_s=60, memory=1 << 29))) as made:
        yield made
    sys.path.remove(str(folder))
    del os.environ["SOME_API_KEY"]


@pytest.fixture(scope="module")
def hasty(child):
    """The clock alone limits it."""
    with closing(Sandbox("sandboxed_work", Limits(processor_s=60, wall_s=0.5))) as made:
        yield made


def ask(child, function, *arguments):
    return child.ask(function, *arguments, what="the judge")


def test_arguments_arrive_as_they_are(child):
    value = {(1, "a"): {3, 1, 2}, 2: b"\x00", "text": "\x00\ud800\n", "big": 10**400, "none": None}
    assert ask(child, "kinds", value) == repr(value)
    assert ask(child, "echo", ["x" * 3_000_000])[0] == "x" * 3_000_000


def test_errors_are_one_short_line_and_the_child_goes_on(child):
    assert ask(child, "echo", 5) == 5
    before = child._child.pid
    with pytest.raises(Unjudged) as caught:
        ask(child, "fail")
    assert str(caught.value).startswith("KeyError: 'xxxx") and len(str(caught.value)) <= 200
    for function, error in (
        ("leave", "SystemExit: 3"),
        ("not_json", "TypeError: Object of type set"),
        ("no", "Attrib"),
    ):
        with pytest.raises(Unjudged, match=f"^{error}"):
            ask(child, function)
    assert ask(child, "echo", 5) == 5
    assert child._child.pid == before


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("for_ever", "took more than 0.5 s of processor time"),  # one call of the interpreter: no handler would run
        ("killed", "ended its process"),
        ("deaf", r"ended its process \(SIGKILL\)"),
    ],
)
def test_what_outlives_a_limit_ends_the_child_only(child, function, reason):
    with pytest.raises(Unjudged, match=f"^the judge {reason}"):
        ask(child, function)
    assert ask(child, "echo", 5) == 5


def test_the_answers_after_one_that_used_its_time_up_are_hurried(child):
    """A batch of them would take hours. Whatever becomes of those after it, they are counted."""
    with closing(Sandbox("sandboxed_work", Limits(processor_s=0.4, hurried_s=0.1))) as made:
        outcomes = []
        for function in ("for_ever", "for_ever", "for_ever", *["kinds"] * (HURRIED - 2), "for_ever"):
            try:
                outcomes.append(ask(made, function, *["5"] * (function == "kinds")))
            except Unjudged as reason:
                outcomes.append(str(reason))
    long, short = (f"the judge took more than {seconds} s of processor time" for seconds in (0.4, 0.1))
    assert outcomes == [long, short, short, *["'5'"] * (HURRIED - 2), long]


@pytest.mark.parametrize("function", ["asleep", "ignored", "for_ever"])
def test_what_computes_nothing_or_hides_it_has_the_clock_against_it(hasty, function):
    with pytest.raises(Unjudged, match="^the judge took more than 0.5 s$"):
        ask(hasty, function)


def test_memory_has_a_limit(child):
    """Beyond what was there before: a large library leaves an answer its share."""
    assert ask(child, "much", 1 << 28) == 1 << 28
    with pytest.raises(Unjudged, match="^MemoryError"):
        ask(child, "much", (1 << 29) + (1 << 20))  # more than the allocator can give back of its own


def test_no_key_is_inherited(child):
    known = ask(child, "environment")
    assert "PATH" in known and "SOME_API_KEY" not in known
    assert set(known) <= {"PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH", "PYTHONHOME"} | {
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "PYTHONHASHSEED",
    }


def test_the_kernel_refuses_what_no_python_hook_sees(child, folder):
    victim = folder / "victim"
    victim.write_text("here")
    at = os.fsencode(victim)
    writing = os.O_WRONLY | os.O_CREAT
    for arguments in (
        (0, at, writing, 0o600),
        (0, at, os.O_RDWR),
        (1,),
        (2, int(socket.AF_INET), int(socket.SOCK_STREAM), 0),
        (3, at),
        (4, os.getpid(), int(signal.SIGUSR1)),
        (5, at + b"_folder", 0o700),
        (6, at, at + b"_moved"),
    ):
        assert ask(child, "raw", *arguments) == -1, arguments
    assert ask(child, "raw", 7, b"touch " + at + b"_touched") != 0
    assert ask(child, "raw", 0, at, os.O_RDONLY) > 0  # reading goes on: libraries load their data
    assert victim.read_text() == "here"
    assert {path.name for path in folder.iterdir() if path.name.startswith("victim")} == {"victim"}


def test_a_child_that_died_between_two_answers_is_replaced(child):
    ask(child, "echo", 1)
    os.kill(child._child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child._child.pid, os.WEXITED | os.WNOWAIT)
    assert ask(child, "echo", 5) == 5


def test_each_thread_gets_its_own_answers(child):
    def ask_often(number):
        for other in range(40):
            found.append(ask(child, "echo", [number, other]) == [number, other])

    found: list[bool] = []
    threads = [Thread(target=ask_often, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert found == [True] * 320


@pytest.mark.parametrize("question", ["'echo', 1", "'asleep'"])
def test_the_child_ends_with_its_parent(folder, question):
    """At once, idle or at work, however long that may take."""
    code = (
        "import os, threading, time; from lightrft.rewards.sandbox.process import Limits, Sandbox\n"
        "child = Sandbox('sandboxed_work', Limits(wall_s=600)); child.ask('echo', 1, what='')\n"
        f"threading.Thread(target=lambda: child.ask({question}, what=''), daemon=True).start(); time.sleep(0.3)\n"
        "print(child._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    ended = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, timeout=60, env={**os.environ, "PYTHONPATH": path}
    )
    assert ended.returncode == -9
    pid, until = int(ended.stdout), time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_module_that_cannot_be_imported_is_named():
    with pytest.raises(Unjudged, match="^the process that judges answers does not start: ModuleNotFoundError: .*'nowh"):
        ask(Sandbox("nowhere_at_all"), "f")


@pytest.mark.parametrize(
    ("text", "value"),
    [("[[1, 0], [0, 1]]", [[1, 0], [0, 1]]), ("max(1, 2.5) * 2", 5.0), ("'a' + 'b'", "ab"), ("-(3 + 4) // 2", -4)],
)
def test_what_only_computes_is_evaluated(child, text, value):
    assert ask(child, "run", text) == value


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch {at}')",
        "open('{at}', 'w')",
        "().__class__.__base__.__subclasses__()",
        "[open(path, 'w') for path in ('{at}',)]",
        "(lambda: open('{at}', 'w'))()",
        "exec('import os; os.mkdir(\"{at}\")')",
        'eval(\'open("{at}", "w")\')',
        "getattr(Path('{at}'), 'touch')()",
        "subprocess.run(['touch', '{at}'])",
        "text",
        "globals()",
        "f'{{text}}'",
        "print(1)",
        "exit()",
        "input()",
    ],
)
def test_an_answer_is_no_program(child, folder, text):
    touched = folder / "touched"
    with pytest.raises(Unjudged, match="^PermissionError: an answer is not run as a program$"):
        ask(child, "run", text.format(at=touched))
    assert not touched.exists()
