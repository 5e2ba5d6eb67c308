"""Families of models with pasts of every kind: each is sampled as its forward pass says, or refused at the start."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from families import VOCABULARY, tiny
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lightrft.errors import Refused
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine
from lightrft.rollouts.engines.probe import needs_equal_lengths
from lightrft.types import Request

TOGETHER = ["qwen2", "gemma3_text", "gpt2", "opt", "bloom", "jamba", "bamba", "qwen3_next"]
APART = ["mamba", "falcon_mamba", "bart"]
REFUSED = ["recurrent_gemma", "rwkv", "minimax", "openai-gpt", "roberta"]


def asked(model: Any, compute: str = "fp32") -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # the library's, for a parameter under its old name
        return needs_equal_lengths(lambda: nullcontext(model), range(3, 20), compute, "some/model")


def worst_gap(model: Any, *, equal_lengths: bool, lively: bool = True) -> float:
    """Over prompts of four lengths in mixed order, rows that leave at every token: each row by itself is the judge."""
    generator = torch.Generator().manual_seed(3)
    lengths, worst = (9, 4, 9, 2, 4, 9), 0.0
    prompts = [tuple(torch.randint(3, VOCABULARY, (n,), generator=generator).tolist()) for n in lengths]
    engine = LocalEngine(lambda: nullcontext(model), None, range(5, 13), equal_lengths=equal_lengths)
    requests = [Request(ids, (3 * i, 3 * i + 1, 3 * i + 2)) for i, ids in enumerate(prompts)]
    found = engine.generate(requests, Sampling(10), at_once=4)
    assert [group[0].prompt_ids for group in found] == prompts and all(len(group) == 3 for group in found)
    assert not lively or len({len(each.response_ids) for group in found for each in group}) > 4
    for each in (each for group in found for each in group):
        ids = torch.tensor([each.prompt_ids + each.response_ids])
        with torch.no_grad():
            logp = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        start = len(each.prompt_ids)
        wanted = logp[start - 1 : -1].gather(1, ids[0, start:, None])[:, 0]
        worst = max(worst, float((wanted - torch.tensor(each.logprobs)).abs().max()))
    return worst


@pytest.mark.parametrize("family", TOGETHER)
def test_a_family_whose_prompts_share_a_batch(family):
    model = tiny(family)
    assert asked(model) is False
    assert worst_gap(model, equal_lengths=False) < 1e-4


@pytest.mark.parametrize("family", APART)
def test_a_family_that_padding_would_change_gets_batches_of_one_length(family):
    model = tiny(family)
    assert asked(model) is True
    assert worst_gap(model, equal_lengths=True) < 1e-4


def test_a_family_that_padding_changes_in_some_versions_of_the_library_is_right_in_all():
    model = tiny("mamba2")
    assert worst_gap(model, equal_lengths=asked(model)) < 1e-4


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_is_sampled_wrongly_is_refused_in_one_line(family):
    with pytest.raises(Refused, match=f"--pretrain some/model: the local engine cannot sample from a {family} model"):
        asked(tiny(family))


def test_a_model_that_sees_later_tokens_is_refused():
    """BERT, as it is trained: `AutoModelForCausalLM` takes it with no more than a warning."""
    with pytest.raises(Refused, match=r"cannot sample from a bert model: its tokens are [\d.]+ nats off"):
        asked(tiny("bert", is_decoder=False))


def test_rounding_in_half_precision_is_no_fault():
    assert asked(tiny("qwen2").to(torch.bfloat16), "bf16") is False


def test_a_past_under_a_name_that_the_model_swallows_is_found(monkeypatch):
    from lightrft.rollouts.engines.local import past

    monkeypatch.setattr(past, "cache_parameter", lambda model: "no_such_name")
    with pytest.raises(Refused, match="as if sampled without their past"):
        asked(tiny("mamba2"))


def test_weights_that_are_not_finite_are_left_to_the_step_that_meets_them():
    model = tiny("qwen2")
    model.model.norm.weight.data[0] = float("nan")
    assert asked(model) is False


def _outcome(family: str, make: Callable[[str], Any]) -> str:
    try:
        model = make(family)
    except Exception as error:  # these sizes make no model of it
        return f"not made: {type(error).__name__}"
    try:
        gap = worst_gap(model, equal_lengths=asked(model), lively=False)
    except Refused:
        return "refused"
    return "right" if gap < 5e-3 else f"wrong by {gap:.2g} nats"


@pytest.mark.slow
def test_every_family_of_the_installed_library_is_sampled_right_or_refused():
    found = {family: _outcome(family, tiny) for family in sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)}
    print(found)
    assert {family: what for family, what in found.items() if what.startswith("wrong")} == {}
    assert sum(what == "right" for what in found.values()) >= 120
