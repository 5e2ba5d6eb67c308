"""A model that does not hand on what rows hold is found when it is loaded."""

from __future__ import annotations

import pytest

from lightrft.errors import Refused
from lightrft.models.packing import Cost
from lightrft.models.segment_check import takes_segments, with_segments_checked
from lightrft.models.token_model import TokenModel
from lightrft.strategy.base import Handle

COST = Cost(1.0, 0.0)


def prepared(model, *, module=None, packs=False):
    return TokenModel(Handle(module or model, model), COST, packs=packs)


def forgetful(model):
    """Calls the model without what its attention should be told."""
    return lambda segments=None, **inputs: model(**inputs)


def confused(model):
    """Numbers positions of a row from its start, whatever sequences it holds."""
    return lambda position_ids=None, **inputs: model(**inputs)


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_a_model_that_hands_it_on_is_kept(causal_model, kind, capsys):
    model = prepared(causal_model(kind), packs=True)
    assert with_segments_checked(model, "it", "--packing_samples") is model and not capsys.readouterr().out


@pytest.mark.parametrize("broken", [forgetful, confused])
def test_one_that_does_not_is_refused_where_a_flag_asks_for_it_and_else_told(causal_model, broken, capsys):
    model = causal_model("llama")
    with pytest.raises(Refused, match="--packing_samples: it: what it computes of two sequences .* leave it out"):
        with_segments_checked(prepared(model, module=broken(model), packs=True), "it", "--packing_samples")
    kept = with_segments_checked(prepared(model, module=broken(model)), "it", None)
    assert not kept.shares_prompts
    told = capsys.readouterr()
    assert "each sample computes its own prompt" in told.out + told.err


def test_a_model_that_would_stop_where_nobody_asked_computes_each_prompt(causal_model, capsys):
    model = causal_model("llama")

    def refuses(segments=None, **inputs):
        if segments is not None:
            raise Refused("attention is told softcap")
        return model(**inputs)

    assert not with_segments_checked(prepared(model, module=refuses), "it", None).shares_prompts
    told = capsys.readouterr()
    assert "told softcap" in told.out + told.err


def test_rows_of_one_sequence_are_not_tried(causal_model):
    model = TokenModel(Handle(None, causal_model("llama")))
    assert with_segments_checked(model, "it", None) is model


@pytest.mark.parametrize(
    ("kind", "kernel", "fault"),
    [
        ("llama", "eager", "runs eager; use --attn_implementation sdpa"),
        ("gpt2", None, "has positions of another kind; leave it out"),
        ("mistral", None, "has layers that see 4 tokens; leave it out"),
        ("gemma2", "eager", "has layers that see 4 tokens; leave it out"),
    ],
)
def test_what_a_configuration_says_is_refused_with_what_would_work(causal_model, kind, kernel, fault):
    needed = "rotary positions and full attention through sdpa in every layer"
    with pytest.raises(Refused, match=f"^--packing_samples needs a model with {needed}, and it {fault}$"):
        takes_segments(causal_model(kind), "it", "--packing_samples", kernel)
    assert not takes_segments(causal_model(kind), "it", None, kernel)


def test_a_model_that_cannot_run_sdpa_is_not_told_to(causal_model, monkeypatch):
    model = causal_model("llama")
    monkeypatch.setattr(type(model), "_supports_sdpa", False)
    with pytest.raises(Refused, match="and it runs eager; leave it out"):
        takes_segments(model, "it", "--packing_samples", "eager")
