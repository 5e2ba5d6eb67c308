"""A fused head sees the loss coming: gradients are those of whole logits, and each logit is made once, where a token's
slope follows from its own scores; twice elsewhere."""

from __future__ import annotations

import pytest
from updates import PART, gradient, updater

from lightrft.algorithms.control import KLController
from lightrft.algorithms.importance import KINDS
from lightrft.models import head_at_once
from lightrft.models.logit_blocks import Blocks
from lightrft.update.kl import KLTerm

BY_ROW = ("sequence_truncate", "sequence_mask", "geometric")


@pytest.fixture
def tokens_of_blocks(monkeypatch) -> list[int]:
    monkeypatch.setattr(head_at_once, "HELD", 4)
    made = list[int]()
    own = Blocks.logits
    monkeypatch.setattr(Blocks, "logits", lambda *given: made.append(given[1].stop - given[1].start) or own(*given))
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("name", "flags", "by_token"),
    [
        ("group_norm", {"entropy_coef": 0.1}, True),
        ("cpgd", {"drift": True}, True),
        ("dr_grpo", {"high_entropy_token_ratio": 0.5}, True),
        ("gspo", {}, False),
        ("gspo_token", {}, False),
        ("gmpo", {}, False),
    ],
)
@pytest.mark.parametrize("on_policy", [True, False])
def test_logits_are_made_once_where_tokens_stand_alone(
    model, batch, alone, tokens_of_blocks, name, flags, by_token, kind, on_policy
):
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
    alone_ones = by_token and not (on_policy and kind in BY_ROW)
    # 22 trained tokens, all in one micro-batch; of those made again, the ones that have a slope
    assert tokens_of_blocks == [4, 4, 4, 4, 4, 2] if alone_ones else sum(tokens_of_blocks) > 22
