from __future__ import annotations

import pytest
import torch
from torch import nn

from lightrft.errors import RunFailed
from lightrft.models.fingerprint import fingerprint
from lightrft.ranks.base import ONE_RANK
from lightrft.strategy.base import Handle
from lightrft.sync.alarm import Alarm
from lightrft.sync.weights import NO_FINGERPRINTS, WeightSync, push


class Engine:
    """Holds what it is sent; `deaf` names tensors that it leaves as they are."""

    def __init__(self, dtype=torch.bfloat16, shares_weights=False, deaf=(), tells=True):
        self.dtype, self.shares_weights, self.deaf, self.tells = dtype, shares_weights, deaf, tells
        self.held, self.versions = {}, []

    def update_weights(self, params, version):
        self.held |= {name: value.clone() for name, value in params if name not in self.deaf}
        self.versions.append(version)

    def fingerprints(self):
        return {(name,): fingerprint(value) for name, value in self.held.items()} if self.tells else None


class Model(nn.Module):
    """An embedding, a head that is tied to it, and a layer."""

    def __init__(self):
        super().__init__()
        self.embed, self.layer, self.head = nn.Embedding(4, 2), nn.Linear(2, 2), nn.Linear(2, 4, bias=False)
        self.head.weight = self.embed.weight


class Strategy:
    """gone: tensors that somebody has asked for."""

    def __init__(self):
        self.gone = []

    def full_params(self, handle):
        for name, value in handle.model.named_parameters():
            self.gone.append(name)
            yield name, value.detach()


def synced(engine, *, ends=False, said=None, everyone=ONE_RANK):
    alarm = Alarm(ends, (said if said is not None else []).append)
    strategy, model = Strategy(), Model()
    return WeightSync(strategy, Handle(None, model), engine, everyone, alarm), model, strategy


def learn(model):
    with torch.no_grad():
        for value in model.parameters():
            value += 1


def test_an_engine_that_shares_its_weights_learns_the_version_alone():
    engine = Engine(shares_weights=True)
    sync, *_ = synced(engine)
    sync.push(version=1)
    sync.push(version=2)
    assert engine.versions == [1, 2] and not engine.held and sync.found is True


def test_another_gets_every_tensor_in_its_dtype_and_tied_ones_under_both_names():
    engine = Engine()
    sync, model, _ = synced(engine)
    sync.push(version=1)
    names = ["embed.weight", "head.weight", "layer.weight", "layer.bias"]
    assert list(engine.held) == names and engine.versions == [1] and sync.found is True
    wanted = model.state_dict()
    assert all(torch.equal(engine.held[name], wanted[name].bfloat16()) for name in names)


def test_a_model_that_no_strategy_holds_is_pushed_alike():
    engine, model = Engine(torch.float32), Model()
    push(model, model.named_parameters(), engine, 3)
    assert list(engine.held) == ["embed.weight", "head.weight", "layer.weight", "layer.bias"]


@pytest.mark.parametrize(("deaf", "cause"), [("head.weight", "tied head"), ("layer.weight", "stale tensor")])
def test_a_tensor_that_stays_as_it_was_is_named(deaf, cause):
    engine, said = Engine(), []
    sync, model, _ = synced(engine, said=said)
    sync.push(version=0)
    learn(model)
    engine.deaf = (deaf,)
    sync.push(version=1)
    [line] = said
    assert line.startswith(f"warning: after step 1: {cause}: {deaf}") and sync.found.cause == cause


def test_with_error_it_ends_the_run():
    sync, *_ = synced(Engine(deaf=("layer.bias",)), ends=True)
    sync.engine.held["layer.bias"] = torch.zeros(2, dtype=torch.bfloat16)
    with pytest.raises(RunFailed, match=r"^after step 4: stale tensor: layer.bias: 1 of the engine's 4 tensors"):
        sync.push(version=4)


def test_an_engine_that_cannot_tell_is_said_once():
    said = []
    sync, *_ = synced(Engine(tells=False), said=said)
    sync.push(version=0)
    sync.push(version=1)
    assert said == [f"notice: {NO_FINGERPRINTS}"] and sync.found is None


def test_weights_in_another_precision_are_told_from_stale_ones():
    class Rounding(Engine):
        def update_weights(self, params, version):
            super().update_weights(((name, value.to(torch.bfloat16)) for name, value in params), version)

    said = []
    sync, *_ = synced(Rounding(torch.float32), said=said)
    sync.push(version=0)
    assert "precision: 4 of the engine's 4 tensors are not those that it was sent: it holds them in bf16" in said[0]


def test_an_engine_that_fails_leaves_no_rank_waiting_for_its_part_of_a_tensor():
    class Failing(Engine):
        def update_weights(self, params, version):
            next(iter(params))
            raise RunFailed("no memory")

    sync, _, strategy = synced(Failing())
    with pytest.raises(RunFailed, match="no memory"):
        sync.push(version=0)
    assert strategy.gone == ["embed.weight", "layer.weight", "layer.bias"]


class Two:
    """Two ranks, of which this one asks for something, if any does; what they agreed on is kept."""

    rank, size = 0, 2

    def __init__(self):
        self.agreed = []

    def agree(self, asked):
        self.agreed.append(asked)
        return asked


def test_fingerprints_that_cannot_be_had_end_the_run_on_all_ranks():
    """The other rank waits for an answer: it is told."""

    class Mute(Engine):
        def fingerprints(self):
            raise RunFailed("the worker has gone")

    everyone = Two()
    sync, *_ = synced(Mute(tells=False), everyone=everyone)
    with pytest.raises(RunFailed, match="the worker has gone"):
        sync.push(version=0)
    assert str(everyone.agreed[-1]) == "the worker has gone"
