"""The sampling masks of the local engine, against a filter in NumPy over the trainer's own logits."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import accumulate, pairwise

import numpy as np
import pytest
import torch

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine, samples
from lightrft.types import Request

PROMPTS = [(3, 4, 5), (6,), (7, 8, 9, 10, 11), (12, 13)]
FILTERS = [{"top_p": 0.8}, {"top_k": 5}, {"min_p": 0.05}, {"top_k": 9, "top_p": 0.9, "min_p": 0.02}]


def generate(model, sampling, *, at_once=2, n=3):
    requests = [Request(ids, tuple(range(100 * i, 100 * i + n))) for i, ids in enumerate(PROMPTS)]
    engine = LocalEngine(lambda: nullcontext(model), None, (2, 17, 30))
    return [each for group in engine.generate(requests, sampling, at_once=at_once) for each in group]


def sets_of(generation):
    mask = generation.sampling_mask
    return [set(mask.ids[start:end]) for start, end in pairwise(accumulate(mask.sizes, initial=0))]


@torch.no_grad()
def probabilities(model, generation, temperature):
    """[response, V] float64, straight from the model."""
    ids, start = (*generation.prompt_ids, *generation.response_ids), len(generation.prompt_ids)
    logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
    return (logits.double() / temperature).softmax(-1).numpy()


def filtered(p, top_k=-1, top_p=1.0, min_p=0.0):
    """One after the other, by sorting."""
    order = np.argsort(-p, kind="stable")
    order = order[:top_k] if top_k > 0 else order
    cdf = p[order].cumsum()
    order = order[: np.searchsorted(cdf, top_p * cdf[-1]) + 1]
    return {int(token) for token in order if p[token] >= min_p * p.max()}


@pytest.mark.parametrize("look_every", [1, 4])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_the_sets_are_what_the_filters_leave_and_the_logprobs_are_of_these(
    causal_model, monkeypatch, filters, look_every
):
    """Also where rows are refilled and dropped, and where it is asked now and then alone which of them have ended."""
    monkeypatch.setitem(samples.LOOK_EVERY, "cpu", look_every)
    model, temperature = causal_model("llama"), 0.7
    asked = Sampling(12, temperature, **filters)
    made = generate(model, Sampling(12, temperature, **filters, returns_mask=True))
    assert len({len(each.response_ids) for each in made}) > 2, "some end earlier than others"
    for each, plain in zip(made, generate(model, asked), strict=True):
        assert each.response_ids == plain.response_ids and plain.sampling_mask is None
        p, found = probabilities(model, each, temperature), sets_of(each)
        assert found == [filtered(row, **filters) for row in p]
        own = np.take_along_axis(p, np.array(each.response_ids)[:, None], 1)[:, 0]
        masses = [row[sorted(kept)].sum() for row, kept in zip(p, found, strict=True)]
        # float32 logits and sums
        assert each.logprobs == pytest.approx(np.log(own / masses), abs=1e-5)
        assert plain.logprobs == pytest.approx(np.log(own), abs=1e-5)


def test_where_nothing_is_left_out_a_token_takes_no_room(causal_model):
    for sampling in (Sampling(6, returns_mask=True), Sampling(6, top_k=61, returns_mask=True)):
        for each in generate(causal_model("llama"), sampling):
            assert list(each.sampling_mask.sizes) == [0] * len(each.response_ids) and not each.sampling_mask.ids
            assert all(logprob < 0 for logprob in each.logprobs)


def test_a_hot_first_token_and_greedy_ones_have_no_set(causal_model):
    """The first one comes from another distribution than the policy's, and filters do not touch the likeliest token."""
    model, filters = causal_model("llama"), {"top_k": 4, "first_temperature": 9.0}
    for each in generate(model, Sampling(6, 0.7, **filters, returns_mask=True)):
        first, *others = sets_of(each)
        assert first == set() and all(len(kept) == 4 for kept in others)
        p = probabilities(model, each, 0.7)[0]
        assert each.logprobs[0] == pytest.approx(np.log(p[each.response_ids[0]]), abs=1e-5)
    for each in generate(model, Sampling(6, 0.0, top_k=4, returns_mask=True)):
        assert not any(sets_of(each))
