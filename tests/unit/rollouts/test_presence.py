"""What an engine holds: repeated calls do nothing, and nothing is sampled from weights that are not there."""

from __future__ import annotations

import pytest

from lightrft.rollouts.engines.presence import Presence


def awake() -> Presence:
    presence = Presence()
    presence.pushed()
    presence.check_ready()
    return presence


def test_only_the_first_of_two_sleeps_and_wakes_does_something():
    presence = awake()
    assert [presence.sleep(keep_weights=True), presence.sleep(keep_weights=True)] == [True, False]
    assert [presence.wake("weights"), presence.wake("weights")] == [True, False]
    assert [presence.wake("kv_cache"), presence.wake("kv_cache")] == [True, False]
    presence.check_ready()


def test_weights_that_were_not_kept_have_to_be_pushed():
    presence = awake()
    presence.sleep(keep_weights=False)
    presence.wake("weights")
    presence.wake("kv_cache")
    with pytest.raises(AssertionError, match="no weights yet"):
        presence.check_ready()
    presence.pushed()
    presence.check_ready()


def test_a_second_sleep_may_drop_what_the_first_one_kept():
    presence = awake()
    presence.sleep(keep_weights=True)
    presence.sleep(keep_weights=False)
    presence.wake("weights")
    presence.wake("kv_cache")
    with pytest.raises(AssertionError, match="no weights yet"):
        presence.check_ready()


@pytest.mark.parametrize("wrong", [lambda p: p.check_ready(), lambda p: p.wake("kv_cache"), lambda p: p.pushed()])
def test_the_order_is_weights_then_a_push_then_the_cache(wrong):
    presence = awake()
    presence.sleep(keep_weights=True)
    with pytest.raises(AssertionError):
        wrong(presence)


def test_an_engine_starts_without_weights():
    with pytest.raises(AssertionError, match="no weights yet"):
        Presence().check_ready()
