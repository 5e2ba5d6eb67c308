"""What a model does to its logits behind its output head, found before it has weights."""

from __future__ import annotations

import pytest
import torch

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
