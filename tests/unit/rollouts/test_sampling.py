from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.sampling import FIRST_TOP, draw, draw_hot, inverse_cdf, keep

LARGEST = 1 - 2**-53  # of the numbers that noise.uniforms can give


def logits_of(rows, vocabulary, scale=2.0, seed=0):
    return torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed)) * scale


def kept_set(logits, **filters):
    """What `keep` leaves, as a mask."""
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    return keep(weights, weights.sum(-1), Sampling(8, **filters)) > 0


def naive_kept(logits, top_k=-1, top_p=1.0, min_p=0.0):
    """By sorting every row in float64."""
    found = []
    for row in logits.double().softmax(-1).numpy():
        order = np.argsort(-row, kind="stable")
        if top_k > 0:
            order = order[:top_k]
        if top_p < 1.0:
            cdf = row[order].cumsum()
            order = order[: np.searchsorted(cdf, top_p * cdf[-1]) + 1]
        order = [i for i in order if row[i] >= min_p * row.max()]
        found.append(np.isin(np.arange(len(row)), order))
    return torch.from_numpy(np.stack(found))


@pytest.mark.parametrize("vocabulary", [1, 7, 255, 256, 257, 1000])
def test_inverse_cdf_equals_a_search_in_the_running_sum(vocabulary):
    # Small whole numbers as weights, about half of them 0: every sum is exact, so the comparison is too.
    draws = np.random.default_rng(vocabulary)
    weights = draws.integers(0, 4, (400, vocabulary)) * draws.integers(0, 2, (400, vocabulary))
    weights[:, draws.integers(vocabulary)] = 1
    uniform = np.concatenate([[0.0, LARGEST, 0.25, 0.5], draws.random(396)])
    wanted = [np.searchsorted(w.cumsum(), u * w.sum(), side="right") for w, u in zip(weights, uniform, strict=True)]
    found = inverse_cdf(torch.from_numpy(weights).float(), torch.from_numpy(uniform))
    assert found.tolist() == [int(index) for index in wanted]


@pytest.mark.parametrize("vocabulary", [9, 300, 5000])
def test_a_token_of_weight_zero_is_never_drawn(vocabulary):
    uniform = torch.tensor([0.0, 2.0**-53, 0.5, 1 - 2**-52, LARGEST] * 200, dtype=torch.float64)
    weights = logits_of(1000, vocabulary, 5.0, seed=vocabulary).exp()
    weights[torch.rand(weights.shape, generator=torch.Generator().manual_seed(2)) < 0.7] = 0.0
    weights[:, -3:], weights[:, :2], weights[:, vocabulary // 2] = 0.0, 0.0, 1.0
    found = inverse_cdf(weights, uniform)
    assert bool((weights.gather(1, found[:, None]) > 0).all())
    extremes = weights > 0
    first, last = extremes.long().argmax(-1), vocabulary - 1 - extremes.flip(-1).long().argmax(-1)
    assert torch.equal(found[0::5], first[0::5])
    # At the largest number float32 sums over blocks decide; a weight of less than 1e-7 of the sum may be passed over.
    assert bool((found[4::5] <= last[4::5]).all())


def test_frequencies_follow_the_probabilities():
    logits = logits_of(1, 12)
    n, uniform = 20000, torch.from_numpy(np.random.default_rng(3).random(20000))
    tokens, *_ = draw(logits.expand(n, -1), uniform, Sampling(8, temperature=0.8))
    expected = (logits[0].double() / 0.8).softmax(-1) * n
    chi_square = ((tokens.bincount(minlength=12) - expected).square() / expected).sum().item()
    assert chi_square < 31.26  # 0.1 % of the chi-square distribution with 11 degrees; the draws are fixed


@pytest.mark.parametrize("vocabulary", [12, 300, 3000])
@pytest.mark.parametrize("top_k", [1, 5, 11, 100])
def test_top_k_keeps_what_sorting_and_hugging_face_keep(vocabulary, top_k):
    logits = logits_of(40, vocabulary)
    found = kept_set(logits, top_k=top_k)
    assert torch.equal(found, naive_kept(logits, top_k=top_k))
    assert torch.equal(found, TopKLogitsWarper(top_k)(None, logits).isfinite())


def all_but_one(mask, probabilities):
    """The mass under the mask without its heaviest token, per row."""
    mass = probabilities * mask
    return (mass.sum(-1) - mass.amax(-1)).max().item()


@pytest.mark.parametrize("vocabulary, scale", [(12, 2.0), (300, 2.0), (3000, 4.0), (5000, 0.5), (20000, 0.5)])
@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99])
def test_top_p_keeps_what_sorting_and_hugging_face_keep(vocabulary, scale, top_p):
    logits = logits_of(10, vocabulary, scale)
    found, naive = kept_set(logits, top_p=top_p), naive_kept(logits, top_p=top_p)
    library = TopPLogitsWarper(top_p)(None, logits).isfinite()
    if vocabulary >= 5000 and top_p >= 0.5:
        assert found.sum(-1).min() > 256  # the nucleus is larger than the first look at the top
    if vocabulary <= 300:
        assert torch.equal(found, naive) and torch.equal(found, library)
    # float32 running sums over thousands of tokens: one token at the threshold, or 1e-5 of the mass, may differ.
    probabilities = logits.double().softmax(-1)
    assert all_but_one(found ^ naive, probabilities) < 1e-5
    assert all_but_one(found ^ library, probabilities) < 1e-5


@pytest.mark.parametrize("vocabulary", [12, 300, 3000])
@pytest.mark.parametrize("min_p", [0.01, 0.1, 0.5, 1.0])
def test_min_p_keeps_what_sorting_and_hugging_face_keep(vocabulary, min_p):
    logits = logits_of(40, vocabulary)
    found = kept_set(logits, min_p=min_p)
    assert torch.equal(found, naive_kept(logits, min_p=min_p))
    if min_p < 1.0:  # the library compares rounded probabilities: at 1 the top itself may fall out
        assert torch.equal(found, MinPLogitsWarper(min_p)(None, logits).isfinite())


@pytest.mark.parametrize("vocabulary", [12, 300])
def test_filters_apply_one_after_the_other_each_on_what_the_one_before_kept(vocabulary):
    logits, filters = logits_of(40, vocabulary), {"top_k": 9, "top_p": 0.8, "min_p": 0.2}
    found = kept_set(logits, **filters)
    assert torch.equal(found, naive_kept(logits, **filters))
    chained = logits
    for warper in (TopKLogitsWarper(9), TopPLogitsWarper(0.8), MinPLogitsWarper(0.2)):
        chained = warper(None, chained)
    assert torch.equal(found, chained.isfinite())
    # top_p counts the mass of the nine, not of all: on the whole distribution it would keep more.
    assert (found.sum(-1) < naive_kept(logits, top_p=0.8, min_p=0.2).sum(-1)).any() or vocabulary == 12


def test_no_filter_and_wide_filters_keep_every_token():
    logits = logits_of(3, 20)
    assert bool(kept_set(logits).all()) and bool(kept_set(logits, top_k=50).all())
    assert not Sampling(8).filtered and not Sampling(8, top_k=-1).filtered
    assert all(Sampling(8, **one).filtered for one in ({"top_k": 1}, {"top_p": 0.9}, {"min_p": 0.1}))


def test_rows_with_a_small_and_with_a_large_nucleus_share_a_batch():
    """Of a few tokens, and of most of 20,000: more than are sorted at first."""
    logits = torch.cat([logits_of(1, 20000, scale, seed) for seed, scale in enumerate((8.0, 0.3, 8.0, 0.1))])
    found = kept_set(logits, top_p=0.9)
    sizes = found.sum(-1).tolist()
    assert max(sizes[::2]) < FIRST_TOP < min(sizes[1::2]) and torch.equal(found, naive_kept(logits, top_p=0.9))


def test_ties_at_a_threshold_are_kept():
    logits = torch.tensor([[0.0, 1.0, 1.0, -1.0]])
    assert kept_set(logits, top_k=1).tolist() == [[False, True, True, False]]
    assert kept_set(logits, top_p=0.1).tolist() == [[False, True, True, False]]


@pytest.mark.parametrize("filters", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}])
def test_drawn_tokens_lie_in_the_kept_set_and_fill_it(filters):
    logits = logits_of(1, 40)
    uniform = torch.cat([torch.linspace(0, 1, 2000, dtype=torch.float64)[:-1], torch.tensor([LARGEST]).double()])
    tokens, *_ = draw(logits.expand(2000, -1), uniform, Sampling(8, **filters))
    assert set(tokens.tolist()) == set(kept_set(logits, **filters)[0].nonzero()[:, 0].tolist())


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
def test_logprobs_are_of_the_scaled_and_unfiltered_distribution(temperature):
    logits, uniform = logits_of(50, 300), torch.from_numpy(np.random.default_rng(1).random(50))
    tokens, logprobs, _ = draw(logits, uniform, Sampling(8, temperature=temperature, top_p=0.5, top_k=20, min_p=0.1))
    wanted = (logits.double() / temperature).log_softmax(-1).gather(1, tokens[:, None])[:, 0]
    assert logprobs.dtype == torch.float32
    torch.testing.assert_close(logprobs.double(), wanted, rtol=1e-5, atol=2e-6)  # float32 sums of 300


def test_temperature_zero_takes_the_largest_with_its_unscaled_logprob():
    logits, uniform = logits_of(50, 300), torch.full((50,), LARGEST, dtype=torch.float64)
    tokens, logprobs, _ = draw(logits, uniform, Sampling(8, temperature=0.0, top_p=0.5))
    assert torch.equal(tokens, logits.argmax(-1))
    torch.testing.assert_close(logprobs, logits.log_softmax(-1).amax(-1), rtol=1e-5, atol=2e-6)  # float32 sums


def test_extreme_and_bfloat16_logits_give_finite_logprobs():
    logits = torch.tensor([[300.0, -300.0, 0.0], [-300.0, -300.0, -300.0]]).bfloat16()
    tokens, logprobs, _ = draw(logits, torch.tensor([LARGEST, LARGEST], dtype=torch.float64), Sampling(8))
    assert tokens.tolist() == [0, 2] and bool(logprobs.isfinite().all())
    assert logprobs[1].item() == pytest.approx(-np.log(3), rel=1e-6)


def test_a_hot_first_token_is_reported_at_the_trained_temperature():
    """FIRE: drawn from softmax(z / 10), which is nearly flat; its log-probability is that of softmax(z / 0.5)."""
    logits = torch.tensor([[0.0, 3.0, 1.0]]).expand(20000, -1)
    uniform = torch.rand(20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, logprobs, _ = draw_hot(logits, uniform, Sampling(8, temperature=0.5, first_temperature=10.0))
    hot, trained = (logits[0] / 10).softmax(-1), (logits[0] / 0.5).log_softmax(-1)
    shares = torch.bincount(tokens, minlength=3) / 20000
    torch.testing.assert_close(shares, hot, rtol=0, atol=0.011)  # three standard errors of a share of 20,000
    torch.testing.assert_close(logprobs, trained[tokens], rtol=1e-6, atol=1e-6)


def test_a_hot_first_token_keeps_the_filters():
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.9]]).expand(1000, -1)
    uniform = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tokens, *_ = draw_hot(logits, uniform, Sampling(8, top_k=2, first_temperature=10.0))
    assert set(tokens.tolist()) == {1, 3}


@pytest.mark.parametrize("vocabulary", [5, 256, 300, 700])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 0.0}])
def test_logits_that_are_not_finite_give_a_token_without_a_logprob_and_harm_no_other_row(vocabulary, filters):
    """All NaN, one NaN, one infinite, all -inf; then a row of which some tokens cannot come, and a plain one."""
    logits = logits_of(6, vocabulary)
    logits[0], logits[1, 2], logits[2, 3], logits[3] = np.nan, np.nan, np.inf, -np.inf
    logits[4, : vocabulary // 2] = -np.inf
    uniform = torch.tensor([0.0, 0.5, LARGEST, 0.5, 0.0, LARGEST], dtype=torch.float64)
    for drawn, sampling in ((draw, Sampling(8, **filters)), (draw_hot, Sampling(8, first_temperature=9.0, **filters))):
        tokens, logprobs, _ = drawn(logits, uniform, sampling)
        assert logprobs.isnan().tolist() == [True] * 4 + [False] * 2
        assert int(tokens.min()) >= 0 and int(tokens.max()) < vocabulary and int(tokens[4]) >= vocabulary // 2
        alone = drawn(logits[4:], uniform[4:], sampling)
        assert torch.equal(tokens[4:], alone[0]) and torch.equal(logprobs[4:], alone[1])
