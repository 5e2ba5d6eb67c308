"""A head's sums over the vocabulary where logits are steep, low, of halves, or of words that are never written."""

from __future__ import annotations

import pytest
import torch
from heads import drawn, some_tokens
from torch import Tensor

from lightrft.models import logit_blocks
from lightrft.models.fused_head import fused_logprobs
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logit_sums import Sums
from lightrft.models.logprob import token_logprobs


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Of 7 columns, which divide no vocabulary here."""
    monkeypatch.setattr(logit_blocks, "CELLS", 0)
    monkeypatch.setattr(logit_blocks, "NARROWEST", 7)


def test_steep_logits_stay_finite():
    """The largest logit comes late, and most others have no mass at all."""
    weight, hidden = torch.linspace(-300, 300, 40)[:, None].requires_grad_(), torch.ones(1, 1)
    own = fused_logprobs(Blocks(hidden, weight, None, (), 0.5, 4), torch.tensor([0]), "gradient")
    assert own[0].tolist() == pytest.approx([-1200.0, 0.0], abs=1e-2)
    own.sum().backward()
    assert bool(weight.grad.isfinite().all())


def test_logits_that_are_all_low_have_a_sum(monkeypatch):
    """As on a device, where no word's own logit is asked for first: 2^-400 is 0 in float32."""
    monkeypatch.setattr(Sums, "are_finite", False)
    weight = torch.linspace(-300, -299, 40)[:, None]
    found = fused_logprobs(Blocks(torch.ones(1, 1), weight, None, (), 1.0, 4), torch.tensor([0]), "value")
    wanted = token_logprobs(weight.double().T, torch.tensor([0]), 1.0, "value")
    assert found[0].tolist() == pytest.approx([float(each) for each in wanted if each is not None], rel=1e-5)


def test_a_word_that_is_never_written_has_no_probability():
    """Also as one that was, with logits of one sign, which a first largest logit lowers or raises."""
    weight, hidden = torch.tensor([[-3.0], [-2.0], [-1.0], [-1.0]]), torch.tensor([[1.0], [1.0], [-1.0]])
    found = fused_logprobs(Blocks(hidden, weight, None, (0, 3), 1.0, 4), torch.tensor([3, 2, 0]), "value")
    rare = torch.tensor([-1.0, -2.0]).softmax(0)
    entropy = float(-(rare * rare.log()).sum())
    assert found[:, 0].tolist() == pytest.approx([-torch.inf, float(rare[0].log()), -torch.inf])
    assert found[:, 1].tolist() == pytest.approx([entropy] * 3)


def test_a_word_that_is_never_written_does_not_learn():
    """Nor where a token is one: its logit is no logit of the head's."""
    for weight_trains in (True, False):
        hidden, weight, _ = drawn(2, 4, 3)
        weight.requires_grad_(weight_trains)
        own = fused_logprobs(Blocks(hidden, weight, None, (3,), 1.0, 4), torch.tensor([1, 3]), None)
        own.sum().backward()
        assert not weight_trains or weight.grad[3].tolist() == [0.0] * 3
        assert bool(hidden.grad.isfinite().all())


def test_a_first_block_that_is_never_written_leaves_the_others_their_digits(monkeypatch):
    monkeypatch.setattr(Sums, "are_finite", False)
    hidden, weight, _ = drawn(4, 30, 5, dtype=torch.float32)
    found = fused_logprobs(Blocks(hidden, weight, None, tuple(range(7)), 1.0, 4), some_tokens(4) % 20 + 8, None)
    logits = (hidden.double() @ weight.double().T).index_fill(-1, torch.arange(7), -torch.inf)
    wanted = token_logprobs(logits, some_tokens(4) % 20 + 8, 1.0, None)[0]
    torch.testing.assert_close(found[:, 0].double(), wanted, rtol=1e-5, atol=1e-5)  # float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_entropy_gradients_of_unlikely_tokens_are_as_near_as_those_of_whole_logits(dtype):
    """To float64, of a frozen head: what p log p times words is taken off from is as small as it can be."""
    hidden, weight, _ = (1.4 * each.detach() for each in drawn(20, 500, 16, dtype=torch.float32))
    hidden, weight = hidden.to(dtype), weight.to(dtype)
    tokens = (hidden @ weight.T).argmin(-1)

    def gradient(score, kind=dtype) -> Tensor:
        leaf = hidden.to(kind, copy=True).requires_grad_()
        score(leaf, weight.to(kind)).sum().backward()
        assert leaf.grad is not None
        return leaf.grad.double()

    def whole(leaf, weight) -> Tensor:
        logits = torch.nn.functional.linear(leaf, weight)
        [_, entropy] = token_logprobs(
            logits.to(torch.promote_types(logits.dtype, torch.float32)), tokens, 1.0, "gradient"
        )
        assert entropy is not None
        return entropy

    exact, plain = gradient(whole, torch.float64), gradient(whole)
    own = gradient(lambda *given: fused_logprobs(Blocks(*given, None, (), 1.0, 4096), tokens, "gradient")[:, 1])
    assert float((own - exact).norm()) < 2 * float((plain - exact).norm())


def test_sums_of_halves_are_made_once(monkeypatch):
    """Of unlikely tokens: from their own logits on, weights of words would be too large for float16."""
    made = []
    own_logits = Blocks.logits
    monkeypatch.setattr(Blocks, "logits", lambda *given: made.append(given[2]) or own_logits(*given))
    hidden, weight, _ = (4 * each.detach().half() for each in drawn(6, 14, 4, dtype=torch.float32))
    fused_logprobs(Blocks(hidden.requires_grad_(), weight, None, (), 1.0, 6), (hidden @ weight.T).argmin(-1), "value")
    assert made == [slice(0, 7), slice(7, 14)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_are_in_float32(dtype):
    """Beside float64 of the same logits: 2,000 words, whose probabilities no half could add up."""
    hidden, weight, _ = drawn(6, 2000, 4, dtype=torch.float32)
    half, head, tokens = hidden.detach().to(dtype), weight.detach().to(dtype), some_tokens(6, 2000)
    own = fused_logprobs(Blocks(half, head, None, (), 1.0, 4), tokens, "value")
    logits = (half @ head.T).double()
    logprobs, entropy = token_logprobs(logits, tokens, 1.0, "value")
    assert own.dtype == torch.float32
    # float32 sums
    torch.testing.assert_close(own.double(), torch.stack([logprobs, entropy], -1), rtol=1e-5, atol=1e-5)
