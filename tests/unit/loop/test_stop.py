"""Real signals to this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from lightrft.loop.stop import StopRequest
from lightrft.ranks.pulse import PULSE


@pytest.fixture
def stop():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}  # else a deaf one ends pytest
    request = StopRequest()
    request.listen()
    yield request
    for number, handler in before.items():
        signal.signal(number, handler)


def test_nothing_is_asked_for_by_itself(stop):
    assert stop.name is None


@pytest.mark.parametrize("number", (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
def test_a_signal_is_a_wish(stop, number, capfd, monkeypatch):
    monkeypatch.setattr(PULSE, "ends", False)  # a run of another test may have ended, and none has begun here
    os.kill(os.getpid(), number)
    assert stop.name == number.name
    again = "; once more to stop at once, unsaved" if number is signal.SIGINT else ""
    assert capfd.readouterr().err == f"\n{number.name}: stopping after this step{again}\n"


def test_a_second_interrupt_stops_at_once(stop):
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_sigterm_goes_on_waiting(stop):
    """Schedulers send it more than once, and then SIGKILL: until that there is time to save."""
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.name == "SIGTERM"


@pytest.mark.parametrize("ignored, said", [(False, "SIGHUP\n"), (True, "None\n")])
def test_a_terminal_that_closes_asks_for_a_stop_except_under_nohup(ignored, said):
    """A process that inherits an ignored SIGHUP, as nohup starts it, goes on."""
    program = (
        "import os, signal; from lightrft.loop.stop import StopRequest; stop = StopRequest(); stop.listen(); "
        "os.kill(os.getpid(), signal.SIGHUP); print(stop.name)"
    )
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (done.returncode, done.stdout) == (0, said), done.stderr
