from __future__ import annotations

import io
import math
from types import SimpleNamespace

import pytest

from lightrft.track import console as module
from lightrft.track.clock import Clock
from lightrft.track.console import Console, duration
from lightrft.types import Reward

VALUES = {"reward/mean": 0.25, "rollout/length_mean": 12.34, "perf/tokens_per_s": 1234.5, "perf/step_s": 2.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def now(monkeypatch):
    """A clock that stands still until the test moves it."""
    times = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: times[0])
    return times


def lines(stream):
    return stream.getvalue().splitlines()


def test_a_line_per_step_with_the_time_left(now):
    stream = io.StringIO()
    console = Console(10, 1, stream=stream)
    now[0] = 102.0
    console.metrics(VALUES, 1)
    now[0] = 110.0
    console.metrics({**VALUES, "eval/accuracy": 0.5}, 2)
    # one step of 2 s done, nine to go; then two steps in 10 s, eight to go
    assert lines(stream) == [
        "step 1/10 | reward 0.250 | length 12.3 | 1234 tokens/s | 2.0 s/step | 0:18 left",
        "step 2/10 | reward 0.250 | held out 0.500 | length 12.3 | 1234 tokens/s | 2.0 s/step | 0:40 left",
    ]


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(now):
    stream = io.StringIO()
    console = Console(100, 1, stream=stream)
    now[0] = 102.0
    console.metrics(VALUES, 91)
    assert lines(stream)[0].endswith("0:18 left")


def test_the_first_invalid_samples_are_always_explained_and_later_ones_where_they_are_counted(now):
    def rollouts(*errors):
        rewards = [Reward(total=0.0) if error is None else Reward(total=math.nan, error=error) for error in errors]
        return [SimpleNamespace(reward=reward) for reward in rewards]

    told = {}
    for quiet in (False, True):
        stream = io.StringIO()
        console = Console(7, 3, quiet=quiet, stream=stream)
        for step in range(1, 8):
            console.metrics(VALUES, step)
            console.rollouts(rollouts(None, "a: x", None) if step > 1 else rollouts(None), None, step)
        told[quiet] = [line for line in lines(stream) if "tokens/s" not in line]
    assert told[True] == ["step 2: 1 of 3 samples are invalid (1: a: x)"]
    assert told[False] == [f"step {step}: 1 of 3 samples are invalid (1: a: x)" for step in (2, 3, 6, 7)]


def test_every_nth_step_and_the_last_are_told(now):
    stream = io.StringIO()
    console = Console(7, 3, stream=stream)
    for step in range(1, 8):
        console.metrics(VALUES, step)
    assert [line.split(" | ")[0] for line in lines(stream)] == ["step 3/7", "step 6/7", "step 7/7"]


def test_quiet_leaves_progress_out_but_not_what_is_said():
    stream = Terminal()
    console = Console(2, 1, quiet=True, stream=stream)
    console.phase("generate")
    console.metrics(VALUES, 1)
    console.unless_quiet("progress")
    console.always("stopping")
    assert stream.getvalue().replace("\r\033[K", "") == "stopping\n"


def test_the_phase_is_shown_on_a_terminal_only_and_wiped_before_a_line():
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        console = Console(2, 1, stream=stream)
        console.phase("generate")
        console.unless_quiet("done")
    assert "step 1/2 generate ..." in terminal.getvalue() and terminal.getvalue().endswith("\r\033[Kdone\n")
    assert file.getvalue() == "done\n"


@pytest.mark.parametrize(
    "seconds, text", [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (36610, "10:10:10")]
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_the_clock_adds_up_phases_and_starts_anew_at_each_lap(monkeypatch):
    times, told = [10.0], []
    monkeypatch.setattr("lightrft.track.clock.time.perf_counter", lambda: times[0])
    clock = Clock(told.append)

    def spend(phase, seconds):
        with clock(phase):
            times[0] += seconds

    spend("generate", 2.0)
    spend("train", 3.0)
    spend("generate", 0.5)
    times[0] += 1.0
    assert clock.lap() == {"perf/generate_s": 2.5, "perf/train_s": 3.0, "perf/step_s": 6.5}
    with pytest.raises(RuntimeError), clock("train"):
        times[0] += 4.0
        raise RuntimeError
    assert clock.lap() == {"perf/train_s": 4.0, "perf/step_s": 4.0}
    assert told == ["generate", "train", "generate", "train"]
