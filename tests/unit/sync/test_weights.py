from __future__ import annotations

from lightrft.strategy.base import Handle
from lightrft.sync.weights import WeightSync


class Engine:
    def __init__(self, shares_weights):
        self.shares_weights, self.calls = shares_weights, []

    def update_weights(self, params, version):
        self.calls.append((list(params), version))


class Strategy:
    def full_params(self, handle):
        yield "weight", handle.module


def test_every_engine_learns_the_version_and_only_those_apart_get_weights():
    sharing, first, second = Engine(True), Engine(False), Engine(False)
    sync = WeightSync(Strategy(), [sharing, first, second])
    sync.push(Handle("one", None), version=1)
    sync.push(Handle("two", None), version=2)
    assert sharing.calls == [([], 1), ([], 2)]
    assert first.calls == second.calls == [([("weight", "one")], 1), ([("weight", "two")], 2)]
