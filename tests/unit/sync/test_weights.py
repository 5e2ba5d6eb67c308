from __future__ import annotations

import pytest

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


@pytest.mark.parametrize(("shares", "params"), [(True, []), (False, [("weight", "policy")])])
def test_an_engine_learns_the_version_and_gets_weights_where_it_has_its_own(shares, params):
    engine = Engine(shares)
    sync = WeightSync(Strategy(), Handle("policy", None), engine)
    sync.push(version=1)
    sync.push(version=2)
    assert engine.calls == [(params, 1), (params, 2)]
