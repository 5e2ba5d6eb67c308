"""A fused head sees the loss coming: gradients are those of whole logits, and each logit is made once, where a token's
slope follows from its own scores or its row's; twice elsewhere."""

from __future__ import annotations

import pytest
from updates import PART, gradient, updater

from lightrft.algorithms.control import KLController
from lightrft.algorithms.importance import KINDS
from lightrft.models import foreseen
from lightrft.models.logit_blocks import Blocks
from lightrft.update.kl import KLTerm

BY_ROW = ("sequence_truncate", "sequence_mask", "geometric")
BY_LENGTH = [6, 5, 4, 6, 1]  # rows of 6, 5 and 4 tokens, those of 3, 2 and 1 together, and one of 1


@pytest.fixture
def tokens_of_blocks(monkeypatch) -> list[int]:
    monkeypatch.setattr(foreseen, "HELD", 6)
    made = list[int]()
    own = Blocks.logits
    monkeypatch.setattr(Blocks, "logits", lambda *given: made.append(given[1].stop - given[1].start) or own(*given))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("group_norm", {"entropy_coef": 0.1}),
        ("cpgd", {"drift": True}),
        ("dr_grpo", {"high_entropy_token_ratio": 0.5}),
        ("gspo", {}),
        ("gspo_token", {"entropy_coef": 0.1}),
        ("gmpo", {}),
    ],
)
@pytest.mark.parametrize("on_policy", [True, False])
def test_logits_are_made_once(model, batch, alone, tokens_of_blocks, name, flags, kind, on_policy):
    batch = batch.filled(entropy=batch.old_logprobs.abs() * batch.response_mask)
    batch = batch.filled(old_logprobs=None) if on_policy else batch
    flags = dict(flags)
    place = "drift" if flags.pop("drift", False) else "loss"
    given = {"micro": 8, "name": name, "kl": KLTerm(place, KLController(0.3)), "is_correction": kind, **flags}
    updater(alone, model, **given).step(batch, PART)
    wanted = gradient(model)
    model.zero_grad()
    updater(alone, model, chunk=4096, **given).step(batch, PART)
    assert (gradient(model) - wanted).norm() < 1e-6 * wanted.norm()  # float32 logits where they are whole
    by_row = name in ("gspo", "gspo_token", "gmpo") or (on_policy and kind in BY_ROW)
    # 22 trained tokens, all in one micro-batch: six at a time, or as many rows as have six
    assert tokens_of_blocks == (BY_LENGTH if by_row else [6, 6, 6, 4])
