from __future__ import annotations

import pytest

from lightrft.errors import RunFailed
from lightrft.sync.alarm import Alarm, Finding

STALE, HEAD = Finding("stale tensor", "layer.bias"), Finding("tied head", "lm_head")


def test_a_cause_is_said_once_and_again_after_fifty_steps():
    said = []
    alarm = Alarm(False, said.append)
    for step in range(1, 102):
        alarm(STALE, step)
        if step == 7:
            alarm(HEAD, step)
    steps = [f"warning: step {step}: stale tensor: layer.bias" for step in (1, 51, 101)]
    assert said == [steps[0], "warning: step 7: tied head: lm_head", *steps[1:]]


def test_where_it_ends_the_run_nothing_is_said_beside():
    said = []
    with pytest.raises(RunFailed, match=r"^step 3: tied head: lm_head \(--on_logprob_gap error\)$"):
        Alarm(True, said.append)(HEAD, 3)
    assert not said


def test_a_notice_is_given_once():
    said = []
    alarm = Alarm(True, said.append)
    alarm.once("it cannot tell")
    alarm.once("it cannot tell")
    assert said == ["notice: it cannot tell"]
