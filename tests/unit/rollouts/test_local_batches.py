"""Which rows the in-process engine decodes together, and that no token of any depends on it."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
from asked import GREEDY, engine_of, generate, prompts_of_lengths, requests_of

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import decoding
from lightrft.rollouts.engines.local.past import Past, Prompts
from lightrft.types import Request


@pytest.mark.parametrize("kind", ["tiny", "gemma2", "mistral"])
def test_a_response_does_not_depend_on_its_batch(tiny_model, causal_model, kind):
    model = tiny_model if kind == "tiny" else causal_model(kind)
    prompts = [tuple(t % 13 + 3 for t in ids) for ids in prompts_of_lengths([3, 9, 1, 6])]
    requests, sampling = requests_of(prompts, n=4), Sampling(12, temperature=3.0 if kind == "tiny" else 0.8)
    together = generate(model, requests, sampling, at_once=4)
    alone = generate(model, requests, sampling, at_once=1)
    turned = generate(model, requests[::-1], sampling, at_once=3)[::-1]
    assert [[g.response_ids for g in group] for group in together] == [
        [g.response_ids for g in group] for group in alone
    ]
    assert [[g.response_ids for g in group] for group in turned] == [[g.response_ids for g in group] for group in alone]
    assert len({g.response_ids for group in alone for g in group}) > 8  # samples differ from each other


@pytest.mark.parametrize("kind", ["tiny", "gemma2"])
@pytest.mark.parametrize("share", [-1, 1])
def test_dropping_stopped_rows_changes_nothing(tiny_model, causal_model, monkeypatch, kind, share):
    model = tiny_model if kind == "tiny" else causal_model(kind)
    ends = (2,) if kind == "tiny" else range(2, 12)  # many early ends
    prompts = [tuple(t % 13 + 3 for t in ids) for ids in prompts_of_lengths([3, 9, 1, 6])]
    requests, sampling = requests_of(prompts, n=5), Sampling(30, temperature=3.0 if kind == "tiny" else 1.0)
    plain = generate(model, requests, sampling, end_ids=ends)
    monkeypatch.setattr(decoding, "DROP_BELOW", {"cpu": share})  # never, and at every step
    changed = generate(model, requests, sampling, end_ids=ends)
    lengths = [len(g.response_ids) for group in plain for g in group]
    assert min(lengths) < 6 and len(set(lengths)) > 3
    for one, other in zip(sum(plain, []), sum(changed, []), strict=True):
        assert (one.response_ids, one.finish_reason) == (other.response_ids, other.finish_reason)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)  # float32 in another batch


def forwards(generate_it):
    """[rows, tokens] of each pass of prompts, and of each step; and what was generated."""
    seen, read, step = [], Prompts.__init__, Past.forward

    def reads(prompts, model, ids, *more):
        seen.append((len(ids), max(map(len, ids))))
        read(prompts, model, ids, *more)

    def steps(past, tokens):
        seen.append((len(tokens), 1))
        return step(past, tokens)

    with mock.patch.object(Prompts, "__init__", reads), mock.patch.object(Past, "forward", steps):
        return seen, generate_it()


@pytest.mark.parametrize("spare", [1, 64])
@pytest.mark.parametrize("kind", ["tiny", "llama", "gpt2", "gemma2"])
def test_a_finished_row_s_place_is_taken_and_no_token_changes(tiny_model, causal_model, monkeypatch, kind, spare):
    """Seven requests, two at once, of which rows end at every token: against each by itself, in a batch of its own.

    spare: with one column the cache moves to the front over and over. Sliding windows (gemma2) begin anew instead.
    """
    model = tiny_model if kind == "tiny" else causal_model(kind)
    ends = (2,) if kind == "tiny" else range(2, 9)
    prompts = [tuple(t % 13 + 3 for t in ids) for ids in prompts_of_lengths([3, 9, 1, 6, 9, 2, 5])]
    requests, sampling = requests_of(prompts, n=4), Sampling(30, temperature=3.0 if kind == "tiny" else 1.0)
    monkeypatch.setattr(decoding, "SPARE", spare)
    engine = engine_of(model, end_ids=ends)
    steps, found = forwards(lambda: engine.generate(requests, sampling, at_once=2))
    apart, alone = forwards(lambda: engine.generate(requests, sampling, at_once=1))
    wanted = [generate(model, [request], sampling, end_ids=ends)[0] for request in requests]
    for one, other in zip(sum(found, []) + sum(alone, []), sum(wanted, []) * 2, strict=True):
        assert (one.response_ids, one.finish_reason) == (other.response_ids, other.finish_reason)
        assert one.prompt_ids == other.prompt_ids
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)  # float32 beside other rows
    lengths = [len(g.response_ids) for g in sum(found, [])]
    assert min(lengths) < 6 and len(set(lengths)) > 6
    assert max(rows for rows, _ in steps) <= 8 and max(rows for rows, _ in apart) <= 4
    assert (len(steps) < 45) == (kind != "gemma2"), "rows that go on keep no others waiting"


def test_many_responses_that_end_at_once_follow_one_another(causal_model):
    """Each takes the place of the one before: 1500 of them, deeper than Python can call."""
    requests = [Request((3, 4), (i,)) for i in range(1500)]
    found = generate(causal_model("llama"), requests, Sampling(4), at_once=2, end_ids=range(61))
    assert [len(g.response_ids) for [g] in found] == [1] * 1500


def test_a_long_response_keeps_no_others_waiting(causal_model):
    """One response in eight is 40 tokens long, the others end at once: 64 of them take 40 steps for each long one of a
    place, not for each batch."""
    model, prompts = causal_model("llama"), prompts_of_lengths([5] * 32)
    requests = [Request(ids, (8 * i, 8 * i + 1)) for i, ids in enumerate(prompts)]
    engine = engine_of(model, end_ids=range(3, 30))
    sampling = Sampling(40, temperature=1.5)
    steps, found = forwards(lambda: engine.generate(requests, sampling, at_once=4))
    tokens = sum(len(g.response_ids) for g in sum(found, []))
    assert sum(width == 1 for _, width in steps) < 1.6 * tokens / 8, "eight places, nearly always taken"


def test_prompts_of_like_lengths_are_decoded_together_and_come_back_in_the_order_asked(causal_model):
    model, prompts = causal_model("llama"), prompts_of_lengths([2, 9, 2, 7, 9, 2])
    seen = []
    hook = model.register_forward_pre_hook(
        lambda _, inputs, words: seen.append((*words["input_ids"].shape, words.get("attention_mask"))), with_kwargs=True
    )
    found = generate(model, requests_of(prompts), replace(GREEDY, max_new_tokens=1), at_once=2)
    hook.remove()
    assert [shape for *shape, _ in seen] == [[2, 9], [2, 7], [2, 2]]
    masks = [mask if mask is None else mask.tolist() for *_, mask in seen]
    assert masks == [None, [[1] * 7, [0] * 5 + [1] * 2], None], "without padding there is no mask"
    assert [g.prompt_ids for [g] in found] == prompts


@pytest.mark.parametrize("enough", (1, 2, 3))
def test_it_ends_when_enough_requests_have_all_their_samples(tiny_model, prompts, enough):
    requests, sampling = requests_of(prompts, n=3), Sampling(12)
    engine = engine_of(tiny_model)
    whole = engine.generate(requests, sampling, at_once=len(requests))
    longest = [max(len(made.response_ids) for made in group) for group in whole]
    last = sorted(longest)[enough - 1]
    found = engine.generate(requests, sampling, at_once=len(requests), enough=enough)
    assert [] in found, "nothing was given up"
    assert found == [group if length <= last else [] for group, length in zip(whole, longest, strict=True)]
