"""The in-process engine against `generate` of the library, and against the trainer's log-probabilities."""

from __future__ import annotations

import copy
import math
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest
import torch
from asked import GREEDY, SAMPLED, engine_of, generate, hugging_face, prompts_of_lengths, requests_of

from lightrft.batch import collate
from lightrft.errors import RunFailed
from lightrft.models.token_model import TokenModel
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.strategy.base import Handle
from lightrft.types import Request


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


def test_a_sample_depends_on_its_own_seed_only(tiny_model, prompts):
    engine = engine_of(tiny_model)
    [[a, b, c]] = engine.generate([Request(prompts[0], (1, 2, 3))], SAMPLED, at_once=1)
    turned = [Request(prompts[0], (3,)), Request(prompts[0], (1,))]
    [[c_again], [a_again]] = engine.generate(turned, SAMPLED, at_once=2)
    assert (a.response_ids, c.response_ids) == (a_again.response_ids, c_again.response_ids)


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
