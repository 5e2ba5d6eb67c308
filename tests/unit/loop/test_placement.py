from __future__ import annotations

import pytest

from lightrft.loop.placement import Placement
from lightrft.ranks.base import ONE_RANK
from lightrft.rollouts.engines.base import EngineFailed


class Engine:
    """Writes down what it is told."""

    def __init__(self):
        self.told = []

    def sleep(self, *, keep_weights):
        self.told.append("sleep, keeping weights" if keep_weights else "sleep")

    def wake(self, what):
        self.told.append(f"wake {what}")

    def close(self):
        self.told.append("close")

    everyone, fails = ONE_RANK, 0

    def push(self, version):
        """In the place of a WeightSync."""
        self.told.append(f"push {version}")
        if self.fails:
            self.fails -= 1
            raise EngineFailed("a sync that failed")

    def restart(self):
        self.told.append("restart")


@pytest.fixture
def parts():
    engine = Engine()
    return Placement(engine, engine), engine.told


def woken(version):
    return ["wake weights", f"push {version}", "wake kv_cache"]


def two_turns(placement):
    for version in (0, 1):
        placement.generate(version)  # an evaluation
        placement.generate(version)  # the turn's rollouts
        placement.score()
        placement.learn()


def test_memory_changes_hands_in_order_and_weights_are_pushed_once_a_version(parts):
    """Two turns: an evaluation before, one after each step, and all of a state's callers may enter it again."""
    placement, told = parts
    two_turns(placement)
    placement.generate(2)
    placement.close()
    assert told == [*woken(0), "sleep", *woken(1), "sleep", *woken(2), "close"]


def test_an_engine_that_does_not_sleep_gets_the_weights_of_every_version():
    engine = Engine()
    placement = Placement(engine, engine, sleeps=False)
    two_turns(placement)
    placement.generate(2)
    placement.rest()
    placement.generate(2)
    placement.close()
    assert engine.told == ["push 0", "push 1", "push 2", "close"]


def test_after_a_sync_somebody_is_told_when_the_engine_can_generate():
    engine = Engine()
    placement = Placement(engine, engine, after_sync=lambda version: engine.told.append(f"probe {version}"))
    placement.generate(5)
    placement.rest()
    placement.generate(5)
    assert engine.told == [*woken(5), "probe 5", "sleep, keeping weights", "wake weights", "wake kv_cache"]


def test_a_resumed_run_generates_with_what_it_has_learned(parts):
    placement, told = parts
    placement.generate(7)
    assert told == woken(7)


def test_the_engine_sleeps_while_a_checkpoint_is_written_and_keeps_the_weights_that_are_still_the_newest(parts):
    """After an evaluation it is awake; after a step it sleeps already, without weights."""
    placement, told = parts
    placement.generate(3)
    placement.rest()
    placement.rest()
    placement.generate(3)
    assert told == [*woken(3), "sleep, keeping weights", "wake weights", "wake kv_cache"]
    placement.score()
    placement.learn()
    placement.rest()
    placement.generate(4)
    assert told[6:] == ["sleep", *woken(4)]


def test_a_run_that_ends_before_it_generates_wakes_nothing(parts):
    placement, told = parts
    placement.close()
    assert told == ["close"]


@pytest.mark.parametrize(
    ("states", "wrong"),
    [
        ([], "score comes after generate, not after learn"),
        (["generate"], "learn comes after score, not after generate"),
        (["generate", "rest"], "score comes after generate, not after rest"),
        (["generate", "score"], "score comes after generate, not after score"),
        (["generate", "score", "learn"], "learn comes after score, not after learn"),
    ],
)
def test_a_state_out_of_order_is_noticed(parts, states, wrong):
    placement, told = parts
    enter = {
        "generate": lambda: placement.generate(0),
        "rest": placement.rest,
        "score": placement.score,
        "learn": placement.learn,
    }
    for state in states:
        enter[state]()
    before = list(told)
    with pytest.raises(AssertionError, match=wrong):
        enter[wrong.split()[0]]()
    assert told == before, "nothing is done by halves"


def test_a_version_that_was_never_learned_is_noticed(parts):
    placement, _ = parts
    placement.generate(0)
    with pytest.raises(AssertionError, match="version 1 of a policy that has not learned since 0"):
        placement.generate(1)


def test_an_engine_that_fails_is_replaced_and_gets_the_same_weights(parts, capsys):
    placement, told = parts
    placement.generate(3)
    placement.renew()
    assert told == [*woken(3), "restart", *woken(3)]


def test_a_sync_that_fails_is_tried_once_more_on_a_fresh_engine(parts, capsys):
    placement, told = parts
    placement.engine.fails = 1
    placement.generate(3)
    assert told == ["wake weights", "push 3", "restart", *woken(3)]
    assert "step 4: a sync that failed; trying once more on a fresh engine" in capsys.readouterr().err
    placement.score()
    placement.learn()
    placement.engine.fails = 2
    with pytest.raises(EngineFailed, match="a sync that failed"):
        placement.generate(4)


def test_an_engine_that_fails_when_it_is_tried_out_is_replaced_too(capsys):
    engine, tries = Engine(), iter([EngineFailed("it died"), None])

    def probe(version):
        engine.told.append("probe")
        if (failed := next(tries)) is not None:
            raise failed

    Placement(engine, engine, after_sync=probe).generate(3)
    assert engine.told == [*woken(3), "probe", "restart", *woken(3), "probe"]
    assert "step 4: it died; trying once more on a fresh engine" in capsys.readouterr().err


class Ailing(Engine):
    """Fails once at what `at` names."""

    at = ""

    def _once(self, name):
        if self.at == name:
            self.at = ""
            raise EngineFailed("its process is gone")

    def sleep(self, *, keep_weights):
        super().sleep(keep_weights=keep_weights)
        self._once("sleep")

    def wake(self, what):
        super().wake(what)
        self._once(what)


@pytest.mark.parametrize("at", ("weights", "kv_cache"))
def test_an_engine_that_fails_when_it_wakes_is_replaced(at):
    engine = Ailing()
    placement = Placement(engine, engine)
    engine.at = at
    placement.generate(2)
    assert engine.told[-4:] == ["restart", *woken(2)]


def test_an_engine_that_fails_when_it_goes_to_sleep_is_replaced_and_gets_the_weights_again():
    engine = Ailing()
    placement = Placement(engine, engine)
    placement.generate(2)
    engine.at = "sleep"
    placement.rest()
    assert engine.told[3:] == ["sleep, keeping weights", "restart", "sleep"]
    placement.generate(2)
    assert engine.told[6:] == woken(2), "the fresh one has no weights that it could have kept"


def test_an_engine_that_is_given_up_is_asked_for_nothing(parts):
    placement, told = parts
    placement.generate(1)
    placement.give_up()
    placement.rest()
    assert told == [*woken(1), "close"]
