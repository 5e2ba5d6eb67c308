"""A trained head whose loss is foreseen: the gradients of whole logits by three products, and corrected where other
slopes come."""

from __future__ import annotations

import pytest
import torch
from heads import drawn, some_tokens
from torch import Tensor

from lightrft.models import foreseen as foreseen_losses
from lightrft.models import logit_blocks, products
from lightrft.models.foreseen import Foreseen
from lightrft.models.fused_head import fused_logprobs, logits_held
from lightrft.models.logit_blocks import Blocks
from lightrft.models.logprob import token_logprobs

WEIGHTS = torch.linspace(-1.0, 2.0, 10, dtype=torch.float64)
CLIPPED = torch.tensor([1.0, 0, 0, 1, 1, 0, 1, 0, 0, 0], dtype=torch.float64)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Of 7 words and 3 tokens, which divide neither vocabulary nor batch."""
    monkeypatch.setattr(logit_blocks, "CELLS", 0)
    monkeypatch.setattr(logit_blocks, "NARROWEST", 7)
    monkeypatch.setattr(foreseen_losses, "HELD", 3)


@pytest.fixture
def made(monkeypatch) -> list[int]:
    """Of each block of logits that is made, the tokens."""
    rows = list[int]()
    own = Blocks.logits
    monkeypatch.setattr(Blocks, "logits", lambda *given: rows.append(given[1].stop - given[1].start) or own(*given))
    return rows


def a_loss(scores: Tensor) -> Tensor:
    """By token, and not linear in the scores: some have no slope, as clipped ones, to the log-probability."""
    loss = (CLIPPED * WEIGHTS * (0.5 * scores[:, 0]).exp()).sum()
    return loss if scores.shape[1] == 1 else loss + (CLIPPED * scores[:, 1].square()).sum()


def slopes_of(loss, kind):
    """As the trainer asks for them: of all tokens, when some are known."""

    def slopes(scores: Tensor) -> Tensor:
        both = seen(scores, kind).detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(loss(both), both)[0]

    return slopes


def known(loss, kind, rows: list[int] | None = None) -> Foreseen:
    return Foreseen(slopes_of(loss, kind), None if rows is None else torch.tensor(rows))


def whole(found: list[Tensor], kind) -> Tensor:
    logits = (found[0] @ found[1].T + found[2]).index_fill(-1, torch.tensor([21, 22]), -torch.inf)
    return seen(
        torch.stack(
            [each for each in token_logprobs(logits, some_tokens(words=21), 0.7, kind) if each is not None], -1
        ),
        kind,
    )


def seen(scores: Tensor, kind) -> Tensor:
    return scores if kind == "gradient" else scores[:, :1]


def foreseen(found: list[Tensor], kind, loss=a_loss, rows: list[int] | None = None) -> Tensor:
    blocks = Blocks(*found, (21, 22), 0.7, 4096)
    return seen(fused_logprobs(blocks, some_tokens(words=21), kind, known(loss, kind, rows)), kind)


def same_gradients(found: list[Tensor], wanted: list[Tensor]) -> None:
    for mine, its in zip(found, wanted, strict=True):
        assert (mine.grad is None) == (its.grad is None)
        if mine.grad is not None:
            torch.testing.assert_close(mine.grad, its.grad, rtol=1e-10, atol=1e-12)  # float64


@pytest.mark.parametrize("kind", [None, "value", "gradient"])
@pytest.mark.parametrize("trained", [(0, 1, 2), (1,), (0, 2)], ids=str)
@pytest.mark.parametrize("times", [1.0, 3.0])
def test_gradients_are_those_of_whole_logits_and_no_logit_is_made_twice(kind, trained, times, made):
    """times: strategies multiply the loss."""
    found, wanted = drawn(), drawn()
    for each in (found, wanted):
        for number in {0, 1, 2} - set(trained):
            each[number].requires_grad_(False)
    own, its = foreseen(found, kind), whole(wanted, kind)
    assert made == [3] * 12 + [1] * 4  # ceil(10 / 4) = 3 at a time
    (times * a_loss(own)).backward()
    (times * a_loss(its)).backward()
    assert len(made) == 16
    torch.testing.assert_close(own, its)
    same_gradients(found, wanted)


ROWS = [4, 1, 0, 3, 2]


def a_loss_of_rows(scores: Tensor) -> Tensor:
    """Each row's is of the mean of its scores, and the last has no slope."""
    rows = zip(scores.split(ROWS), (1.0, -0.5, 1.0, 2.0, 0.0), strict=True)
    return torch.stack([weight * row.mean(0).exp().sum() for row, weight in rows if len(row)]).sum()


@pytest.mark.parametrize("kind", ["value", "gradient"])
@pytest.mark.parametrize(
    ("held", "at_first", "again"), [(4, [4, 4, 2], []), (3, [4, 1, 3, 2], [4]), (2, [10], [8])], ids=str
)
def test_rows_are_known_as_wholes(kind, held, at_first, again, made, monkeypatch):
    """So many tokens at most together; those of longer rows have their logits made again; all, where these are most."""
    monkeypatch.setattr(foreseen_losses, "HELD", held)
    found, wanted = drawn(), drawn()
    own, its = foreseen(found, kind, a_loss_of_rows, ROWS), whole(wanted, kind)
    assert made == [part for part in at_first for _ in range(4)]  # blocks of words
    made.clear()
    (3 * a_loss_of_rows(own)).backward()
    (3 * a_loss_of_rows(its)).backward()
    assert made == 4 * again
    torch.testing.assert_close(own, its)
    same_gradients(found, wanted)


@pytest.mark.parametrize(
    ("rows", "longest", "held"),
    [
        ([5, 5, 5, 5], 1024, 5 * 23),  # a quarter of all, by all 23 words
        ([5, 5, 5, 5], 4, 20 * 7),  # none: a block is of seven words
        ([6, 4, 5, 5], 1024, 5 * 23),
        ([6, 6, 6, 2], 1024, 20 * 7),
        ([1] * 11 + [9], 1024, 3 * 23),
        ([1] * 40 + [40], 1024, 40 * 7),  # the long row's block is the larger array
    ],
)
def test_what_is_held_of_rows(rows, longest, held, monkeypatch):
    monkeypatch.setattr(foreseen_losses, "HELD_ROW", longest)
    blocks = Blocks(*drawn(sum(rows)), (), 0.7, 4096)
    assert logits_held(blocks, known(a_loss_of_rows, "value", rows)) == held


@pytest.mark.parametrize("kind", ["value", "gradient"])
def test_other_slopes_are_corrected(kind, made):
    """Of three tokens alone, whose logits are made again; of all, where nothing was foreseen right, but for the token
    whose slope all are taken as multiples of."""
    moved = torch.tensor([0.0, 0, 5, 0, -2, 0, 0, 0, 0, 1], dtype=torch.float64)
    for loss, again in (
        (lambda s: a_loss(s) + (moved * s[:, 0]).sum(), 3),
        (lambda s: (s * s.flip(0)).sum(), 9 + (kind == "gradient")),
    ):
        found, wanted = drawn(), drawn()
        own = foreseen(found, kind)
        made.clear()
        loss(own).backward()
        loss(whole(wanted, kind)).backward()
        assert made == [again] * 4
        same_gradients(found, wanted)


def test_a_second_backward_pass_finds_the_same():
    found, wanted = drawn(), drawn()
    own = 3 * a_loss(foreseen(found, "value"))
    own.backward(retain_graph=True)
    own.backward()
    (6 * a_loss(whole(wanted, "value"))).backward()
    same_gradients(found, wanted)


@pytest.mark.parametrize("kind", ["value", "gradient"])
def test_sums_that_overflow_are_made_from_the_largest(kind, made):
    """Logits from -1,600 to 1,600, own words among the smallest; no product is made for it."""
    tokens = torch.zeros(10, dtype=torch.long)
    found, wanted = drawn(), drawn()
    for hidden, weight, _ in (found, wanted):
        with torch.no_grad():
            hidden.fill_(1.0)
            weight.copy_(torch.linspace(-300, 300, 23)[:, None])
    own = fused_logprobs(Blocks(*found, (), 0.9375, 4096), tokens, kind, known(a_loss, kind))
    logits = found[0].detach().clone() @ wanted[1].T + wanted[2]
    its = torch.stack([each for each in token_logprobs(logits, tokens, 0.9375, kind) if each is not None], -1)
    torch.testing.assert_close(own, its)
    assert made == [3] * 12 + [1] * 4
    loss = [(WEIGHTS * each[:, 0]).sum() for each in (own, its)]
    loss[0].backward()
    loss[1].backward()
    same_gradients(found[1:], wanted[1:])


def test_what_is_nan_or_infinite_is_not_hidden():
    """A hidden state; all slopes that came; one of them."""
    found = drawn()
    with torch.no_grad():
        found[0][4] = torch.nan
    a_loss(foreseen(found, "value")).backward()
    assert found[1].grad is not None and bool(found[1].grad.isnan().any())
    for factor in (torch.nan, torch.inf, torch.ones(10).index_fill(0, torch.tensor(3), torch.inf)):
        found = drawn()
        (factor * foreseen(found, "value", lambda scores: scores.sum())[:, 0]).sum().backward()
        assert found[1].grad is not None and not bool(found[1].grad.isfinite().all())


def test_slopes_that_have_nothing_in_common_with_those_expected_leave_no_trace():
    """Huge ones were, and numbers that are none; and where none came the gradient is 0 to the bit."""
    tokens, small = some_tokens(words=21), torch.linspace(-1, 1, 10)
    for expected in (small.clone().index_fill(0, torch.tensor(9), 1e12), small.clone().fill_(torch.nan)):
        for of in (small.index_fill(0, torch.tensor(9), 0), small * 0):
            found = [each.detach().float().requires_grad_() for each in drawn()]
            wanted = [each.detach().clone().requires_grad_() for each in found]
            blocks = Blocks(*found, (), 0.7, 4096)
            foreseen = Foreseen(lambda _, given=expected: given[:, None])
            fused_logprobs(blocks, tokens, None, foreseen)[:, 0].dot(of).backward()
            logits = wanted[0] @ wanted[1].T + wanted[2]
            token_logprobs(logits, tokens, 0.7, None)[0].dot(of).backward()
            for mine, its in zip(found, wanted, strict=True):
                torch.testing.assert_close(mine.grad, its.grad, rtol=1e-5, atol=1e-6 * float(of.abs().max()))


def test_rounding_of_a_multiplied_loss_makes_no_logits_again(made):
    """In float32, by 3, with slopes of tokens that all but cancel: what is left is a rounding of the largest."""
    found = [each.detach().float().requires_grad_() for each in drawn()]
    near = torch.linspace(-1e-4, 1e-4, 10)

    def loss(scores: Tensor) -> Tensor:
        d = scores[:, 0] - scores[:, 0].detach() + near
        return (WEIGHTS.float() * (d.exp() - 1 - d)).sum() + scores[0, 0]

    own = foreseen(found, "value", loss)
    made.clear()
    (loss(own) * 3 / 7 * 5).backward()
    assert made == []


@pytest.mark.parametrize("kind", [None, "value", "gradient"])
def test_no_token_has_gradients_of_zero(kind):
    found = drawn(0)
    own = fused_logprobs(Blocks(*found, (), 0.7, 4096), some_tokens(0, 21), kind, known(lambda s: s.sum(), kind))
    own.sum().backward()
    assert [each.grad.abs().sum().item() for each in found] == [0.0, 0.0, 0.0]


def test_three_products_and_none_for_tokens_without_a_slope(monkeypatch):
    """By oneDNN, as those of linear layers: of 512 tokens, and of 512 of which 256 have a slope."""
    monkeypatch.setattr(logit_blocks, "NARROWEST", 256)
    monkeypatch.setattr(foreseen_losses, "HELD", 512)
    asked = []
    own = products._product
    monkeypatch.setattr(products, "_product", lambda *given: asked.append(tuple(given[0].shape)) or own(*given))
    hidden, weight = (0.1 * each.detach() for each in drawn(1024, 256, 256, dtype=torch.float32)[:2])
    slopes = torch.ones(1024, 1)
    slopes[512:768] = 0
    blocks = Blocks(hidden.requires_grad_(), weight.requires_grad_(), None, (), 1.0, 4096)
    foreseen = Foreseen(lambda _: slopes)
    assert logits_held(blocks, foreseen) == 512 * 256
    scores = fused_logprobs(blocks, torch.zeros(1024, dtype=torch.long), None, foreseen)
    scores[:, 0].dot(slopes[:, 0]).backward()
    logits = (256, 256)  # the weight, by hidden states
    assert asked == [logits, (512, 256), (256, 512), logits, (256, 256), (256, 256)]
