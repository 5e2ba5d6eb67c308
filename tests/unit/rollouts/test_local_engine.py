"""The in-process engine against `generate` of the library, and against the trainer's log-probabilities."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from unittest import mock

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from lightrft.batch import collate
from lightrft.errors import RunFailed
from lightrft.models.token_model import TokenModel
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.kv_cache import RoomyLayer, make_cache
from lightrft.rollouts.engines.local import LocalEngine, decoding
from lightrft.rollouts.engines.local.past import Past, Prompts
from lightrft.strategy.base import Handle
from lightrft.types import Request

QUESTIONS = ["3+5=", "9+9=", "10+1=2+2=", "7", "2+2=4+4=8+8=1", "1+1="]
GREEDY, SAMPLED = Sampling(12, temperature=0.0), Sampling(12, temperature=0.8)


def engine_of(model, tokenizer=None, end_ids=(2,)):
    return LocalEngine(lambda: nullcontext(model), tokenizer, end_ids)


def generate(model, requests, sampling, at_once=4, **engine):
    return engine_of(model, **engine).generate(requests, sampling, at_once=at_once)


def requests_of(prompts, n=1):
    return [Request(tuple(ids), tuple(range(100 * i, 100 * i + n))) for i, ids in enumerate(prompts)]


def hugging_face(model, ids, max_new_tokens, end_id=2):
    """One prompt at a time, so that no padding can matter."""
    found = model.generate(
        torch.tensor([ids]), max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=end_id, pad_token_id=0
    )
    return tuple(found[0, len(ids) :].tolist())


@pytest.fixture
def prompts(tiny_tokenizer):
    return [tuple(tiny_tokenizer(question).input_ids) for question in QUESTIONS]


def prompts_of_lengths(lengths):
    generator = torch.Generator().manual_seed(11)
    return [tuple(torch.randint(3, 61, (n,), generator=generator).tolist()) for n in lengths]


@pytest.mark.parametrize("at_once", [1, 4, 6])
def test_greedy_equals_the_library_token_for_token(tiny_model, tiny_tokenizer, prompts, at_once):
    found = generate(tiny_model, requests_of(prompts), GREEDY, at_once)
    wanted = [hugging_face(tiny_model, ids, 12) for ids in prompts]
    assert [g.response_ids for [g] in found] == wanted
    assert any(len(ids) < 12 for ids in wanted)  # some end early, else nothing is shown about ends
    for [generation], ids in zip(found, wanted, strict=True):
        assert generation.finish_reason == ("stop" if ids[-1] == 2 else "length")
        assert len(generation.logprobs) == len(ids)
    assert [g.prompt_ids for [g] in found] == prompts


@pytest.mark.parametrize("at_once", [1, 5])
@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "mistral", "gpt2"])
def test_greedy_equals_the_library_for_other_models_also_with_sliding_windows(causal_model, kind, at_once):
    model = causal_model(kind)
    prompts = prompts_of_lengths([3, 11, 1, 6, 4])  # windows are 4: shorter, equal, longer
    found = generate(model, requests_of(prompts), Sampling(14, temperature=0.0), at_once)
    assert [g.response_ids for [g] in found] == [hugging_face(model, ids, 14) for ids in prompts]


@pytest.mark.parametrize("kind", ["tiny", "llama", "gemma2", "gemma3", "mistral", "gpt2"])
def test_sampled_logprobs_are_the_trainers(tiny_model, causal_model, make_rollout, kind):
    model = tiny_model if kind == "tiny" else causal_model(kind)
    prompts = [tuple(t % 13 + 3 for t in ids) for ids in prompts_of_lengths([3, 9, 1, 6])]
    sampling = replace(SAMPLED, top_p=0.9)
    found = generate(model, requests_of(prompts, n=3), sampling)
    rollouts = [
        make_rollout(g.prompt_ids, g.response_ids, logprobs=g.logprobs, position=i)
        for i, group in enumerate(found)
        for g in group
    ]
    batch = collate(rollouts, sampling.temperature, torch.device("cpu"))
    with torch.no_grad():
        wanted = TokenModel(Handle(model, model)).logprobs(batch).logprobs
    # float32 through a key-value cache instead of whole rows
    torch.testing.assert_close(batch.rollout_logprobs, wanted, rtol=0, atol=1e-4)


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


def test_a_sample_depends_on_its_own_seed_only(tiny_model, prompts):
    engine = engine_of(tiny_model)
    [[a, b, c]] = engine.generate([Request(prompts[0], (1, 2, 3))], SAMPLED, at_once=1)
    turned = [Request(prompts[0], (3,)), Request(prompts[0], (1,))]
    [[c_again], [a_again]] = engine.generate(turned, SAMPLED, at_once=2)
    assert (a.response_ids, c.response_ids) == (a_again.response_ids, c_again.response_ids)


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


@pytest.mark.parametrize("stop", [("1",), ("=", "88"), ("12",)])
def test_a_stop_string_ends_a_response_after_the_token_that_completes_it(tiny_model, tiny_tokenizer, prompts, stop):
    sampling = Sampling(20, temperature=3.0, ignore_eos=True)
    engine, requests = engine_of(tiny_model, tiny_tokenizer), requests_of(prompts, n=24)
    free = sum(engine.generate(requests, sampling, at_once=4), [])
    found = sum(engine.generate(requests, replace(sampling, stop=stop), at_once=4), [])
    hits = 0
    for one, other in zip(free, found, strict=True):
        texts = [tiny_tokenizer.decode(one.response_ids[: t + 1]) for t in range(20)]
        end = next((t + 1 for t, text in enumerate(texts) if any(s in text for s in stop)), None)
        hits += end is not None
        assert other.response_ids == one.response_ids[:end]
        assert other.finish_reason == ("length" if end is None else "stop")
    assert hits > 5  # enough responses were stopped, in whichever batch


def test_rows_that_end_by_themselves_leave_no_text_to_look_through(tiny_model, tiny_tokenizer, prompts, monkeypatch):
    """transformers 5.19, say, makes one empty text of no rows."""
    original = tiny_tokenizer.batch_decode
    monkeypatch.setattr(tiny_tokenizer, "batch_decode", lambda rows: original(rows) or [""])
    engine, requests = engine_of(tiny_model, tiny_tokenizer), requests_of(prompts[:1])
    [[free]] = engine.generate(requests, GREEDY, at_once=1)
    assert free.finish_reason == "stop" and engine.generate(requests, replace(GREEDY, stop=("x",)), at_once=1) == [
        [free]
    ]


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


def test_ignore_eos_fills_the_budget(tiny_model, prompts):
    found = generate(tiny_model, requests_of(prompts, n=4), replace(SAMPLED, ignore_eos=True))
    flat = sum(found, [])
    assert {len(g.response_ids) for g in flat} == {12} and {g.finish_reason for g in flat} == {"length"}
    assert any(2 in g.response_ids[:-1] for g in flat)


def test_a_budget_of_one_token(tiny_model, prompts):
    found = generate(tiny_model, requests_of(prompts, n=2), Sampling(1, temperature=0.0))
    assert [g.response_ids for g, _ in found] == [hugging_face(tiny_model, ids, 1) for ids in prompts]
    assert [len(g.logprobs) for g, _ in found] == [1] * len(prompts)


def test_a_response_that_ends_with_its_last_token_stopped(tiny_model, prompts):
    [[whole]] = generate(tiny_model, requests_of(prompts[:1]), GREEDY)
    n = len(whole.response_ids)
    [[exact]] = generate(tiny_model, requests_of(prompts[:1]), Sampling(n, temperature=0.0))
    assert (exact.response_ids, exact.finish_reason) == (whole.response_ids, whole.finish_reason)
    if n > 1:
        [[short]] = generate(tiny_model, requests_of(prompts[:1]), Sampling(n - 1, temperature=0.0))
        assert (short.response_ids, short.finish_reason) == (whole.response_ids[:-1], "length")


def test_a_model_trains_after_a_generation_as_before_it(causal_model):
    """Its whole weights are made for the generation, and its rotary frequencies anew for the long rows."""
    model = copy.deepcopy(causal_model("llama"))
    scaled = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    model.config.rope_parameters, model.config.max_position_embeddings = scaled, 8
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    before = copy.deepcopy(model)

    @contextmanager
    def gathered():
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()
        yield model

    LocalEngine(gathered, None, ()).generate(requests_of(prompts_of_lengths([3, 9])), Sampling(20), at_once=2)
    assert not torch.equal(model.model.rotary_emb.inv_freq, before.model.rotary_emb.inv_freq)
    ids = torch.tensor(prompts_of_lengths([29]))  # as long as the longest row: the same frequencies
    for each in (model, before):
        each(input_ids=ids, labels=ids).loss.backward()
    for trained, untouched in zip(model.parameters(), before.parameters(), strict=True):
        torch.testing.assert_close(trained.grad, untouched.grad, rtol=0, atol=0)


def test_batches_are_counted_and_versions_kept(tiny_model, prompts):
    engine, requests = engine_of(tiny_model), requests_of(prompts)
    engine.generate(requests, Sampling(1), at_once=4)
    engine.generate(requests, Sampling(1), at_once=2)
    assert engine.stats() == {"decode_batches": 2.0 + 3.0}
    assert engine.stats() == {"decode_batches": 0.0}
    engine.update_weights((), version=7)
    assert engine.version == 7 and engine.shares_weights


def test_a_roomy_layer_holds_what_a_growing_one_holds():
    generator = torch.Generator().manual_seed(0)

    def states(batch, length):
        return [torch.randn(batch, 2, length, 3, generator=generator) for _ in range(2)]

    ours, theirs = RoomyLayer(room=6), DynamicLayer()
    for rows, kept in (((2, 4), [0, 0, 1, 1, 1]), ((5, 1), [0, 2, 4]), ((3, 1), [2, 1]), ((2, 1), [0, 1])):
        new = states(*rows)
        for found, wanted in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(found, wanted)
        assert ours.get_seq_length() == theirs.get_seq_length()
        for layer in (ours, theirs):
            layer.reorder_cache(torch.tensor(kept))
    assert torch.equal(ours.keys, theirs.keys) and torch.equal(ours.values, theirs.values)
    plain, prompt, token = RoomyLayer(room=1), states(2, 4), states(2, 1)
    plain.update(*prompt)
    for found, *parts in zip(plain.update(*token), prompt, token, strict=True):
        assert torch.equal(found, torch.cat(parts, dim=2))


def test_layers_of_other_kinds_stay_as_the_library_makes_them(causal_model):
    config = causal_model("gemma3").config
    ours, theirs = make_cache(config, room=4), DynamicCache(config=config)
    assert [type(layer) for layer in ours.layers] == [type(theirs.layers[0]), RoomyLayer]


def test_logits_that_are_not_finite_end_the_generation_in_one_line(causal_model):
    """From the first token on, and at the third token of one response alone."""
    model, prompts = copy.deepcopy(causal_model("llama")), prompts_of_lengths([3, 5])
    calls = []

    def spoil(row, call):
        def hook(module, inputs, logits):
            calls.append(len(logits))
            return logits.index_fill(0, torch.tensor([row]), math.nan) if len(calls) == call else logits

        return hook

    for row, call in ((0, 1), (1, 3)):
        calls.clear()
        handle = model.lm_head.register_forward_hook(spoil(row, call))
        with pytest.raises(RunFailed, match="^the policy's logits are not finite; "):
            generate(model, requests_of(prompts), replace(SAMPLED, max_new_tokens=6), end_ids=())
        handle.remove()
        assert len(calls) == call, "it ends where that is seen"


@pytest.mark.parametrize("fails", (False, True))
def test_cudnn_s_attention_is_off_while_tokens_are_decoded(tiny_model, prompts, fails):
    """It plans anew for every length; and training has what it had, also after a generation that failed."""
    seen = []

    @contextmanager
    def watched():
        def look(*_):
            seen.append(torch.backends.cuda.cudnn_sdp_enabled())
            if fails:
                raise ValueError("on purpose")

        hook = tiny_model.register_forward_pre_hook(look)
        try:
            yield tiny_model
        finally:
            hook.remove()

    engine = LocalEngine(watched, None, (2,))
    assert torch.backends.cuda.cudnn_sdp_enabled()
    with pytest.raises(ValueError, match="on purpose") if fails else nullcontext():
        engine.generate(requests_of(prompts), GREEDY, at_once=4)
    assert seen and not any(seen) and torch.backends.cuda.cudnn_sdp_enabled()


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
