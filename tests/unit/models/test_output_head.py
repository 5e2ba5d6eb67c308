"""What a model does to its logits behind its output head, found before it has weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import CausalLMOutput

from lightrft.errors import Refused
from lightrft.models.output_head import check_described_head, check_head
from lightrft.strategy.base import Handle


def fault(check, model) -> str | None:
    try:
        check(model, "--pretrain x")
    except Refused as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gpt2", "gemma3", "gemma2"])
def test_a_model_without_weights_is_judged_as_it_is_with_them(causal_model, kind):
    model = causal_model(kind)
    with torch.device("meta"):
        described = type(model)(model.config)
    found = fault(check_described_head, described)
    assert found == fault(lambda whole, name: check_head(Handle(whole, whole), name), model)
    assert (found is None) == (kind != "gemma2")
    assert "forward" not in vars(described.get_output_embeddings())


def test_a_model_that_needs_numbers_to_run_is_asked_once_it_has_them(causal_model, monkeypatch):
    model = causal_model("gemma2")

    def routed(*args, **inputs):
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    monkeypatch.setattr(type(model), "forward", routed)
    assert fault(check_described_head, model) is None


@pytest.mark.parametrize(
    ("logits", "refused"),
    [
        (lambda head, hidden: nn.functional.linear(hidden, head.weight), True),  # the head itself is never called
        (lambda head, hidden: head(hidden).to(hidden.device), False),
        (lambda head, hidden: head(hidden).to(hidden.device).tanh(), True),
    ],
    ids=["by the weight", "moved", "moved and capped"],
)
def test_logits_without_numbers_are_judged_once_the_model_has_them(causal_model, monkeypatch, logits, refused):
    """A model of one's own may give others than those that its head was made to give."""
    model = causal_model("llama")

    def forward(self, input_ids, **_):
        return CausalLMOutput(logits=logits(self.lm_head, self.model(input_ids=input_ids).last_hidden_state))

    monkeypatch.setattr(type(model), "forward", forward)
    with torch.device("meta"):
        described = type(model)(model.config)
    assert fault(check_described_head, described) is None
    found = fault(lambda whole, name: check_head(Handle(whole, whole), name), model)
    assert (found is not None) == refused
