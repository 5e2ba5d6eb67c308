from __future__ import annotations

from lightrft.rollouts.engines.base import Sampling
from lightrft.sync.probe import probe_sampling


def test_a_probe_asks_for_no_more_tokens_than_the_engine_was_made_for():
    assert [probe_sampling(room).max_new_tokens for room in (1, 3, 4, 900)] == [1, 3, 4, 4]
    assert probe_sampling(9) == Sampling(4), "unfiltered, at temperature 1"
