"""Log-probabilities over what a sampling mask leaves: by hand, and against a dense softmax of the masked logits."""

from __future__ import annotations

import copy
from math import log

import pytest
import torch

from lightrft.models.logprob import masked_logits, token_logprobs
from lightrft.models.packing import Cost
from lightrft.models.token_model import TokenModel
from lightrft.sampling_masks import SamplingMasks, TokenSets
from lightrft.strategy.base import Handle

LOGITS = torch.tensor([[4.0, 2.0, 1.0, 1.0]]).log().repeat(4, 1)  # p = 1/2 1/4 1/8 1/8
TOKENS = torch.tensor([1, 2, 0, 3])
SETS = TokenSets(torch.tensor([2, 0, 1, 4]), torch.tensor([1, 2, 0, 0, 1, 2, 3]))


@pytest.mark.parametrize(
    ("temperature", "wanted"),
    [(1.0, [2 / 3, 1 / 8, 1.0, 1 / 8]), (0.5, [4 / 5, 1 / 22, 1.0, 1 / 22])],  # of squares: 16 4 1 1
)
def test_the_share_of_a_token_among_those_it_was_drawn_from(temperature, wanted):
    found, entropy = token_logprobs(LOGITS, TOKENS, temperature, "value", SETS)
    # float32 logs
    assert found.tolist() == pytest.approx([log(share) for share in wanted], abs=1e-6)
    assert torch.equal(entropy, token_logprobs(LOGITS, TOKENS, temperature, "value")[1]), "of the whole vocabulary"


def test_without_sets_every_bit_is_as_without_masks():
    logits, tokens = _drawn(30, 50, torch.float32)
    empty = TokenSets(torch.zeros(30, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    assert torch.equal(
        token_logprobs(logits, tokens, 0.7, None, empty)[0], token_logprobs(logits, tokens, 0.7, None)[0]
    )


@pytest.mark.parametrize("every", [3, 31])
@pytest.mark.parametrize("kind", [None, "value", "gradient"])
def test_values_and_gradients_are_those_of_a_dense_softmax_of_the_masked_logits(kind, every):
    """Where some tokens have no set, and where all have one."""
    logits, tokens = _drawn(30, 50, torch.float64)
    sets, dense = _sets(tokens, 50, every)
    assert bool((sets.sizes == 0).any()) == (every == 3)
    weights = torch.linspace(0.5, 1.5, len(tokens), dtype=torch.float64)
    found, wanted = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    own, entropy = token_logprobs(found, tokens, 0.7, kind, sets)
    naive = (wanted / 0.7).masked_fill(~dense, -torch.inf).log_softmax(-1).gather(-1, tokens[:, None])[:, 0]
    torch.testing.assert_close(own, naive, rtol=1e-12, atol=1e-12)  # float64
    loss, naive_loss = (weights * own).sum(), (weights * naive).sum()
    if kind == "gradient":
        p = (wanted / 0.7).softmax(-1)
        loss, naive_loss = loss + (weights * entropy).sum(), naive_loss - (weights * (p * p.log()).sum(-1)).sum()
    loss.backward()
    naive_loss.backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-10, atol=1e-12)
    if kind != "gradient":
        assert bool(found.grad[~dense].eq(0).all()), "what was left out is not learned from"
    torch.testing.assert_close(masked_logits(logits, sets), logits.masked_fill(~dense, -torch.inf))


def test_ratios_and_kl_over_what_was_drawn_from_are_exact():
    """Each token of a set once: its ratios average to 1, and the k1 and k3 estimates to the KL on the set."""
    kept = torch.tensor([0, 2, 3, 5, 8])
    old, new = 2 * torch.randn(2, 1, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    sets = TokenSets(torch.full((5,), 5), kept.repeat(5))
    log_old, log_new = (token_logprobs(z.expand(5, -1), kept, 0.8, None, sets)[0] for z in (old, new))
    weights, log_ratio = log_old.exp(), log_new - log_old
    assert float((weights * log_ratio.exp()).sum()) == pytest.approx(1.0, abs=1e-12)
    p, q = ((z[0, kept] / 0.8).softmax(-1) for z in (old, new))
    kl = float((p * (p / q).log()).sum())
    assert float((weights * -log_ratio).sum()) == pytest.approx(kl, rel=1e-10)
    assert float((weights * (log_ratio.exp() - 1 - log_ratio)).sum()) == pytest.approx(kl, rel=1e-10)


def test_a_set_of_hardly_any_mass_gives_finite_numbers():
    logits = torch.tensor([[0.0, 300.0, -300.0, -301.0]], requires_grad=True)
    sets = TokenSets(torch.tensor([2]), torch.tensor([2, 3]))
    [found], _ = token_logprobs(logits, torch.tensor([3]), 1.0, None, sets)
    assert found.item() == pytest.approx(-1 - log(1 + 1 / 2.718281828), rel=1e-6)
    found.backward()
    assert bool(logits.grad.isfinite().all())


ROWS = [  # two prompts with three and two samples: a token that is not trained amid a response, an empty response
    ((1, 7, 9, 11, 12, 13), (0, 0, 0, 1, 1, 1)),
    ((1, 7, 9, 20), (0, 0, 0, 1)),
    ((1, 7, 9, 21, 22, 23, 24, 2), (0, 0, 0, 1, 1, 0, 1, 1)),
    ((1, 30, 31, 32, 40, 41), (0,) * 4 + (1, 1)),
    ((1, 30, 31, 32), (0,) * 4),
]
GROUPED = {"group": torch.tensor([5, 5, 5, 2, 2]), "prompt_lengths": torch.tensor([3, 3, 3, 4, 4])}


@pytest.mark.parametrize("sharing", [None, Cost(per_token=1e9, per_pair=0.0)])
def test_a_model_scores_each_token_over_its_own_set(causal_model, batch_of, sharing):
    """In either layout, in one batch or in pieces; and other measures see the masked logits."""
    model = copy.deepcopy(causal_model("llama")).double()
    batch = batch_of(ROWS, temperature=0.7, **GROUPED)
    masks, dense = _masks(batch)
    batch = batch.filled(sampling_masks=masks)
    policy, trained = TokenModel(Handle(model, model), sharing), batch.response_mask.bool()
    logits = model(input_ids=batch.input_ids).logits.roll(1, dims=1) / 0.7
    logp = logits.masked_fill(~dense, -torch.inf).log_softmax(-1)
    wanted = logp.gather(-1, batch.input_ids[:, :, None])[:, :, 0].masked_fill(~trained, 0.0)
    found = policy.logprobs(batch, entropy="value")
    torch.testing.assert_close(found.logprobs, wanted, rtol=1e-9, atol=1e-9)
    assert torch.equal(found.entropy, policy.logprobs(batch.filled(sampling_masks=None), entropy="value").entropy)
    for rows in ([0], [2, 1], [4, 3]):
        part = policy.logprobs(batch.select(rows)).logprobs
        torch.testing.assert_close(part, wanted[rows][:, : part.shape[1]], rtol=1e-9, atol=1e-9)
    [measured] = policy.measured(batch, lambda z, t: [(z / 0.7).log_softmax(-1).gather(1, t[:, None])[:, 0]])
    torch.testing.assert_close(measured, wanted, rtol=1e-9, atol=1e-9)


def _drawn(rows, vocabulary, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(rows, vocabulary, generator=generator, dtype=dtype)
    return logits, torch.randint(vocabulary, (rows,), generator=generator)


def _sets(tokens, vocabulary, every=3):
    """A random set with each token in it, but for every third or so, which has none; and the same as [N, V] bool."""
    generator = torch.Generator().manual_seed(1)
    dense = torch.rand(len(tokens), vocabulary, generator=generator) < 0.2
    dense[torch.arange(len(tokens)), tokens] = True
    sizes = dense.sum(-1)
    sizes[every - 1 :: every] = 0
    ids = dense[sizes > 0].nonzero()[:, 1]
    dense[every - 1 :: every] = True
    return TokenSets(sizes, ids), dense


def _masks(batch):
    """Random ones of all response tokens; and as [B, T, V] bool."""
    places = torch.arange(batch.input_ids.shape[1])
    response = (places >= batch.prompt_lengths[:, None]) & (places < batch.lengths[:, None])
    sets, own = _sets(batch.input_ids[response], 61)
    sizes = torch.zeros_like(batch.input_ids).masked_scatter(response, sets.sizes)
    dense = torch.ones(*batch.input_ids.shape, 61, dtype=torch.bool)
    dense[response] = own
    return SamplingMasks(sizes, sets.ids.int().split(sizes.sum(-1).tolist())), dense
