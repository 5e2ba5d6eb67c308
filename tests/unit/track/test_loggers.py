from __future__ import annotations

import pytest

from lightrft.track.base import Logger, Loggers


class Recorder(Logger):
    def __init__(self):
        self.seen = []

    def evaluated(self, values):
        self.seen.append(("evaluated",))

    def metrics(self, values, step):
        self.seen.append(("metrics", step))

    def rollouts(self, rollouts, batch, step):
        self.seen.append(("rollouts", step, batch))

    def close(self):
        self.seen.append(("close",))


class Broken(Recorder):
    def metrics(self, values, step):
        super().metrics(values, step)
        raise OSError("disk\nfull")


class BadAtTheEnd(Recorder):
    def close(self):
        raise TimeoutError("no end")


class Unmakeable(Recorder):
    def __init__(self, folder):
        raise FileNotFoundError(f"{folder} is gone")


def test_a_logger_that_raises_is_reported_once_and_the_others_go_on(capsys):
    first, broken, last = Recorder(), Broken(), Recorder()
    loggers = Loggers([first, broken, last])
    loggers.evaluated({})
    for step in (1, 2):
        loggers.metrics({}, step)
        loggers.rollouts([], "batch", step)
    loggers.close()
    steps = [("metrics", 1), ("rollouts", 1, "batch"), ("metrics", 2), ("rollouts", 2, "batch")]
    assert first.seen == last.seen == [("evaluated",), *steps, ("close",)]
    assert broken.seen == [("evaluated",), ("metrics", 1)]
    captured = capsys.readouterr()
    assert captured.err == "warning: Broken failed and is off from now on (OSError: disk full)\n" and not captured.out


def test_a_logger_that_cannot_be_made_or_closed_is_reported_and_the_others_go_on(warnings):
    loggers, last = Loggers([BadAtTheEnd()]), Recorder()
    loggers.add(Unmakeable, "logs")
    loggers.add(lambda: last)
    assert warnings() == ["warning: Unmakeable failed and is off from now on (FileNotFoundError: logs is gone)"]
    loggers.metrics({}, 1)
    loggers.close()
    assert warnings() == ["warning: BadAtTheEnd failed and is off from now on (TimeoutError: no end)"]
    assert last.seen == [("metrics", 1), ("close",)]


def test_a_plain_logger_listens_to_nothing(warnings):
    loggers = Loggers([Logger()])
    loggers.evaluated({})
    loggers.metrics({}, 1)
    loggers.rollouts([], None, 1)
    loggers.close()
    assert warnings() == []


def test_a_user_s_interrupt_is_not_a_broken_logger():
    class Interrupted(Recorder):
        def metrics(self, values, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Loggers([Interrupted()]).metrics({}, 1)
