"""TokenModel and its layouts against a log_softmax over every position, straight from the model."""

from __future__ import annotations

import copy

import pytest
import torch

from lightrft.models.logprob import entropy_of
from lightrft.models.packing import Cost
from lightrft.models.segment_check import takes_segments
from lightrft.models.token_model import TokenModel
from lightrft.strategy.base import Handle

FREE = Cost(per_token=1e9, per_pair=0.0)  # tokens cost all, pairs nothing: sharing a prompt always pays
KINDS = ["llama", "qwen2", "gemma2", "gpt2"]
# Two prompts with three and two samples: a masked token inside a response, a masked first one, an empty response.
FIRST, SECOND = (1, 7, 9, 4), (1, 30, 31, 32, 33, 5, 6)
ROWS = [
    ((*FIRST, 11, 12, 13), (0, 0, 0, 0, 1, 1, 1)),
    ((*FIRST, 20), (0, 0, 0, 0, 1)),
    ((*FIRST, 21, 22, 23, 24, 2), (0, 0, 0, 0, 1, 1, 0, 1, 1)),
    ((*SECOND, 40, 41), (0,) * 7 + (0, 1)),
    (SECOND, (0,) * 7),
]
GROUPED = {"group": torch.tensor([5, 5, 5, 2, 2]), "prompt_lengths": torch.tensor([4, 4, 4, 7, 7])}


def scored(model, batch, *, module=None, sharing=None, entropy=None, packs=False):
    return TokenModel(Handle(module or model, model), sharing, packs=packs).logprobs(batch, entropy=entropy)


def naive(model, rows, temperature):
    """Each row alone, full float32 log_softmax: logprobs of its trained tokens, and the entropies there."""
    logprobs, entropies = [], []
    for ids, mask in rows:
        logits = model(input_ids=torch.tensor([ids])).logits[0].float() / temperature
        logp = logits.log_softmax(-1)
        at = [t for t, trained in enumerate(mask) if trained]
        logprobs += [logp[t - 1, ids[t]] for t in at]
        entropies += [-(logp[t - 1].exp() * logp[t - 1]).sum() for t in at]
    return torch.stack(logprobs), torch.stack(entropies).detach()


def gradient(model, logprobs):
    """Of a weighted sum: equal weights would hide tokens that are swapped."""
    weights = torch.linspace(0.5, 1.5, len(logprobs))
    return torch.cat([g.flatten() for g in torch.autograd.grad((weights * logprobs).sum(), list(model.parameters()))])


def in_float64(model):
    """The head's logits are still cast to float32; all sums before and after are exact enough for 1e-6."""
    return copy.deepcopy(model).double()


def distance(found, wanted):
    return ((found - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_entropy_equal_a_full_log_softmax(causal_model, batch_of, kind, temperature):
    model, batch = causal_model(kind), batch_of(ROWS, temperature=temperature, **GROUPED)
    scores, trained = scored(model, batch, entropy="value"), batch.response_mask.bool()
    logprobs, entropy = naive(model, ROWS, temperature)
    # float32 logits of size 10 from matmuls of another shape: 1e-6 of the logit
    torch.testing.assert_close(scores.logprobs[trained], logprobs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(scores.entropy[trained], entropy, rtol=1e-5, atol=1e-5)
    assert bool(scores.logprobs[~trained].eq(0).all()) and bool(scores.entropy[~trained].eq(0).all())
    assert scores.logprobs.dtype == torch.float32 and not scores.entropy.requires_grad


def test_the_soft_cap_of_the_head_is_kept(causal_model, batch_of):
    # Log-probabilities under a cap of 2 stay within 4 of each other: a head without it would be far outside.
    model, batch = causal_model("gemma2"), batch_of(ROWS, **GROUPED)
    logits = model(input_ids=batch.input_ids).logits
    assert model.config.final_logit_softcapping == 2.0 and logits.abs().max() <= 2.0
    logprobs = scored(model, batch).logprobs[batch.response_mask.bool()]
    assert logprobs.min() > -4.0 - torch.tensor(61.0).log()


def test_scores_without_entropy_have_none(causal_model, batch_of):
    assert scored(causal_model("llama"), batch_of(ROWS)).entropy is None


@pytest.mark.parametrize("kind", KINDS)
def test_longer_padding_changes_neither_values_nor_gradients(causal_model, batch_of, kind):
    model = in_float64(causal_model(kind))
    found = []
    for width, pad in ((9, 0), (20, 17)):
        batch = batch_of(ROWS, width=width, pad=pad, **GROUPED)
        found.append(scored(model, batch).logprobs[batch.response_mask.bool()])
    torch.testing.assert_close(found[1], found[0], rtol=1e-6, atol=1e-6)  # float32 logits of size 10
    assert distance(gradient(model, found[1]), gradient(model, found[0])) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_micro_batches_have_the_gradient_of_the_whole(causal_model, batch_of, kind):
    model, batch = in_float64(causal_model(kind)), batch_of(ROWS, **GROUPED)
    whole = scored(model, batch).logprobs[batch.response_mask.bool()]
    pieces = []
    for rows in ([0], [1, 2], [3, 4]):
        part = batch.select(rows)
        pieces.append(scored(model, part).logprobs[part.response_mask.bool()])
    assert distance(gradient(model, torch.cat(pieces)), gradient(model, whole)) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_equals_that_of_a_full_log_softmax(causal_model, batch_of, kind):
    model, batch = in_float64(causal_model(kind)), batch_of(ROWS, temperature=0.7, **GROUPED)
    found = scored(model, batch).logprobs[batch.response_mask.bool()]
    assert distance(gradient(model, found), gradient(model, naive(model, ROWS, 0.7)[0])) < 1e-6


@pytest.mark.parametrize(("sharing", "packs"), [(FREE, False), (FREE, True), (None, True)])
@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_samples_that_share_a_row_have_the_same_values_and_gradients(causal_model, batch_of, kind, sharing, packs):
    model, batch = in_float64(causal_model(kind)), batch_of(ROWS, temperature=0.7, **GROUPED)
    assert takes_segments(model)
    trained = batch.response_mask.bool()
    padded = scored(model, batch, entropy="value")
    shared = scored(model, batch, entropy="value", sharing=sharing, packs=packs)
    torch.testing.assert_close(shared.logprobs, padded.logprobs, rtol=1e-6, atol=1e-6)  # float32 logits of size 10
    torch.testing.assert_close(shared.entropy, padded.entropy, rtol=1e-6, atol=1e-6)
    found, wanted = (gradient(model, scores.logprobs[trained]) for scores in (shared, padded))
    assert distance(found, wanted) < 1e-6


@pytest.mark.parametrize("sharing", [FREE, None])
def test_in_a_packed_row_no_sample_sees_another(causal_model, batch_of, sharing):
    """The library's own packing leaks, silently, where it is given a mask or a cache: each sample's values are the same
    to the bit whatever the others hold."""
    model, values = causal_model("llama"), []
    for first in (11, 45):
        rows = [((*FIRST, first, first, 13), ROWS[0][1]), *ROWS[1:]]
        values.append(scored(model, batch_of(rows, **GROUPED), sharing=sharing, packs=True).logprobs)
    assert torch.equal(values[0][1:], values[1][1:]) and not torch.equal(values[0][0], values[1][0])


def test_sharing_a_prompt_calls_the_model_on_fewer_tokens(causal_model, batch_of):
    model, batch, seen = causal_model("llama"), batch_of(ROWS, **GROUPED), []

    def module(**inputs):
        seen.append(tuple(inputs["input_ids"].shape))
        return model(**inputs)

    scored(model, batch, module=module, sharing=FREE)
    scored(model, batch, module=module)
    # group 5: prompt 4 + responses 3 + 1 + 5; group 2: 7 + 2 + 0.
    assert seen == [(2, 13), (5, 9)]


@pytest.mark.parametrize("kind, can", [("llama", True), ("qwen2", True), ("mistral", False), ("gemma2", False)])
def test_only_full_attention_with_rotary_positions_shares_prompts(causal_model, kind, can):
    assert takes_segments(causal_model(kind)) is can
    assert not takes_segments(causal_model("gpt2"))


@pytest.mark.parametrize("sharing", [None, FREE])
@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_a_batch_without_trained_tokens_gives_zeros_with_a_graph(causal_model, batch_of, kind, sharing):
    model, batch = causal_model(kind), batch_of([(ids, (0,) * len(ids)) for ids, _ in ROWS], **GROUPED)
    scores = scored(model, batch, entropy="value", sharing=sharing)
    assert bool(scores.logprobs.eq(0).all()) and bool(scores.entropy.eq(0).all())
    found = torch.autograd.grad(scores.logprobs.sum(), list(model.parameters()), allow_unused=True)
    assert all(g is None or bool(g.eq(0).all()) for g in found) and any(g is not None for g in found)


def test_the_head_is_left_as_it_was(causal_model, batch_of):
    model, ids = causal_model("llama"), torch.tensor([[1, 5, 6, 7]])
    before = model(input_ids=ids).logits
    scored(model, batch_of(ROWS))
    with pytest.raises(RuntimeError):
        scored(model, batch_of(ROWS), module=_broken)
    assert torch.equal(model(input_ids=ids).logits, before)


def _broken(**inputs):
    raise RuntimeError("out of memory")


def test_entropy_by_hand():
    half = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]).log()
    # float32 logs
    torch.testing.assert_close(entropy_of(half), torch.tensor([2.0, 1.0, 3.0]).log(), rtol=1e-6, atol=1e-7)


def test_extreme_logits_are_finite(causal_model, batch_of):
    class Steep(torch.nn.Module):
        def forward(self, **inputs):
            output = model(**inputs)
            output.logits = output.logits * 0 + 300.0 * torch.where(torch.arange(61) % 2 == 0, 1.0, -1.0)
            return output

    model = causal_model("llama")
    scores = scored(model, batch_of(ROWS), module=Steep(), entropy="value")
    assert bool(scores.logprobs.isfinite().all()) and bool(scores.entropy.isfinite().all())
