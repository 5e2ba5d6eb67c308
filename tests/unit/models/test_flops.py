"""The counted operations are those that PyTorch counts in a forward and backward pass."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from lightrft.models.flops import Work


def counted(model, length: int) -> int:
    """Of one row, all of whose tokens have logits; attention by its formula, which looks at all pairs."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter:
        model(input_ids=torch.randint(3, 61, (1, length)), use_cache=False).logits.sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_pass_takes_what_pytorch_counts(causal_model, kind):
    model = copy.deepcopy(causal_model(kind)).requires_grad_(True)
    work, length = Work.of(model), 32
    masked = work.per_pair * (length * length - length * (length + 1) / 2)  # which eager attention computes, too
    wanted = work.of_rows(np.array([length]), np.array([length])) + masked
    assert counted(model, length) == pytest.approx(wanted, rel=0.03)


def test_what_is_frozen_has_no_gradient_of_its_weights(causal_model):
    """Of 6 operations a weight 4 are left, but for the lowest layers' inputs, which need no gradient at all here."""
    model = copy.deepcopy(causal_model("llama")).requires_grad_(True)
    free = Work.of(model)
    model.requires_grad_(False)
    frozen = Work.of(model)
    assert frozen.per_token == free.per_token * 4 / 6 and frozen.per_output == free.per_output * 4 / 6
    assert frozen.per_pair == free.per_pair


def test_what_is_not_known_is_not_counted(causal_model):
    """A token meets few of a model's experts; some configurations tell their size in another way."""
    with_experts, odd = (copy.deepcopy(causal_model("llama")) for _ in range(2))
    with_experts.config.num_experts = 8
    odd.config = SimpleNamespace(get_text_config=SimpleNamespace)
    assert Work.of(with_experts) is None and Work.of(odd) is None
