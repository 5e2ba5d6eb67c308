"""An engine with weights in another precision than the trainer's, against one that borrows such a model."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch

from lightrft.models.fingerprint import fingerprint
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine, OwnWeights
from lightrft.strategy.base import named_tensors
from lightrft.sync.weights import push
from lightrft.types import Request

ASKED = [Request((3, 4, 5, 6, 7), (1, 2, 3)), Request((9, 8), (4, 5, 6))]
SAMPLING = Sampling(10, temperature=0.9)
KINDS = ("tiny", "llama")  # with a tied head, and without


def never():
    raise AssertionError("an engine with weights of its own borrows none")


@pytest.fixture(params=KINDS)
def trained(request, tiny_model, causal_model):
    """A model that requires gradients, and is no other test's."""
    model = copy.deepcopy(tiny_model if request.param == "tiny" else causal_model("llama"))
    assert (len(dict(model.named_parameters())) < len(model.state_dict())) == (request.param == "tiny")
    return model.requires_grad_(True)


def engine_of(model, dtype=torch.bfloat16):
    """As the program makes it: from the files, which hold other weights than those that were trained since."""
    with torch.no_grad():
        other = copy.deepcopy(model).to(dtype).requires_grad_(False)
        for value in other.parameters():
            value.fill_(7.0)
    return LocalEngine(never, None, (2,), own=OwnWeights(lambda: other, dtype))


def push_all(model, engine, version=1):
    push(model, named_tensors(model), engine, version)


def sampled(engine):
    return [[(g.response_ids, g.logprobs) for g in group] for group in engine.generate(ASKED, SAMPLING, at_once=2)]


def borrowed(model, dtype=torch.bfloat16):
    other = copy.deepcopy(model).to(dtype).requires_grad_(False)  # torch takes another way then, of other last bits
    return sampled(LocalEngine(lambda: nullcontext(other), None, (2,)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_it_samples_what_a_model_in_its_precision_samples(trained, dtype):
    engine = engine_of(trained, dtype)
    assert not engine.shares_weights and engine.dtype == dtype
    push_all(trained, engine, version=3)
    assert engine.version == 3 and sampled(engine) == borrowed(trained, dtype)


def test_weights_go_there_and_back_in_place(trained):
    """A, B, A: the same tensors in memory, tied ones once, and A's samples again."""
    engine, first = engine_of(trained), {name: value.detach().clone() for name, value in trained.named_parameters()}
    places = [value.data_ptr() for value in engine.own.model.parameters()]
    push_all(trained, engine)
    a = sampled(engine)
    with torch.no_grad():
        for value in trained.parameters():
            value.mul_(-0.8)
    push_all(trained, engine)
    b = sampled(engine)
    assert b == borrowed(trained) != a
    trained.load_state_dict(first, strict=False)
    push_all(trained, engine)
    assert sampled(engine) == a
    assert [value.data_ptr() for value in engine.own.model.parameters()] == places


def test_it_says_what_it_holds(trained):
    engine = engine_of(trained)
    push_all(trained, engine)
    wanted = {(name,): fingerprint(value.bfloat16()) for name, value in trained.named_parameters()}
    assert engine.fingerprints() == wanted
    assert LocalEngine(lambda: nullcontext(trained), None, ()).fingerprints() is None, "it holds none of its own"


def test_a_tensor_that_does_not_come_is_no_silent_loss(trained):
    engine, (last, _) = engine_of(trained), list(named_tensors(trained))[-1]
    params = ((name, value) for name, value in named_tensors(trained) if name != last)
    with pytest.raises(AssertionError, match=f"the engine got no {last}"):
        push(trained, params, engine, 1)


def test_asleep_it_holds_no_weights_or_the_same(trained):
    engine = engine_of(trained)
    push_all(trained, engine)
    before = sampled(engine)
    for _ in range(2):  # a second sleep, and a second wake, do nothing
        engine.sleep(keep_weights=True)
    for _ in range(2):
        engine.wake("weights")
    engine.wake("kv_cache")
    assert sampled(engine) == before

    for _ in range(2):
        engine.sleep(keep_weights=False)
        assert sum(value.numel() for value in engine.own.model.parameters()) == 0
    for _ in range(2):
        engine.wake("weights")
    with pytest.raises(AssertionError, match="new ones before it generates"):
        sampled(engine)
    push_all(trained, engine)
    engine.wake("weights")
    assert sampled(engine) == before
