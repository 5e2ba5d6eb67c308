"""Steps without the library's modules, against the library's own."""

from __future__ import annotations

import copy
import re
from contextlib import nullcontext

import pytest
import torch
from stepped import KNOWN, made, plain_steps, same, sampled
from torch import nn

from lightrft.args.groups.model import ModelArgs
from lightrft.models.adapters import adapt
from lightrft.models.recompute import recompute_layers
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine, engine, past
from lightrft.rollouts.engines.local import plain as plain_file
from lightrft.rollouts.engines.local.packed import packed
from lightrft.rollouts.engines.local.plain import PlainSteps, plain_of
from lightrft.types import Request


@pytest.fixture
def steps(monkeypatch):
    return plain_steps(monkeypatch)


def by_the_library(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(engine, "plain_of", lambda *_: None)
        return sampled(model)


@pytest.mark.parametrize("kind", KNOWN)
def test_tokens_and_log_probabilities_are_the_library_s(monkeypatch, steps, kind):
    model = made(KNOWN[kind]())
    wanted = by_the_library(model, monkeypatch)
    assert not steps
    same(sampled(model), wanted)
    assert len(steps) > 30 and len(set(steps)) > 2
    assert len({one.response_ids for one in wanted}) > 20


def adapted(dtype):
    """Layers that are computed again for their gradients, with adapters."""
    model = made(KNOWN["qwen2, tied, a head each"](), dtype)
    recompute_layers(model, "the policy")
    adapt(model, ModelArgs(pretrain="none", lora_rank=2, lora_alpha=6.0), seed=0)
    model.to(dtype)
    for name, value in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(value, std=0.3, generator=torch.Generator().manual_seed(2))
    return model


def test_adapters_and_layers_that_are_computed_again_are_known(monkeypatch, steps):
    """In float64: merged weights are rounded once more than a weight and its adapter are."""
    model = adapted(torch.float64)
    same(sampled(model), by_the_library(model, monkeypatch))
    assert steps


@pytest.mark.parametrize(("dtype", "share"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", [*KNOWN, "adapters"])
def test_every_step_is_the_library_s(monkeypatch, kind, dtype, share):
    """In float64 to 1e-12 of the largest logit: what they are off by in float32 is rounding."""
    off = []
    monkeypatch.setattr(PlainSteps, "trusted", property(lambda _: False))  # each is computed in both ways
    monkeypatch.setattr(
        PlainSteps, "compare", lambda _, found, wanted: off.append((found - wanted).abs().max() / wanted.abs().max())
    )
    sampled(adapted(dtype) if kind == "adapters" else made(KNOWN[kind](), dtype))
    assert len(off) > 30 and max(off) < share


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_it_rounds_where_the_library_rounds(monkeypatch, kind):
    """In bfloat16 the mean of what both are off from float32 is the same."""
    model = made(KNOWN[kind](), torch.bfloat16)
    ids, exact = torch.arange(3, 27).view(4, 6), copy.deepcopy(model).float()
    with torch.inference_mode(), packed(model) as products:
        off = []
        for plain in (None, plain_of(model, products)):
            rows = past.Past(past.Prompts(model, ids[:, :-1].tolist(), room=2), range(4), plain)
            logits = rows.forward(ids[:, -1])
            off.append(float((logits.float() - exact(ids).logits[:, -1]).abs().mean()))
    assert rows.quick is not None and off[1] == pytest.approx(off[0], rel=0.15)


TIMES = {"2": r"\d.*", "nan": "nan"}  # what a norm is off by: what is said of the logits


@pytest.mark.parametrize("times", TIMES)
def test_a_model_that_gives_other_logits_is_told_of_once_and_stepped_by_the_library(monkeypatch, steps, capsys, times):
    model, norm = made(KNOWN["llama"]()), plain_file.rms_norm
    wanted = by_the_library(model, monkeypatch)
    monkeypatch.setattr(plain_file, "rms_norm", lambda *given: float(times) * norm(*given))
    for _ in range(2):
        same(sampled(model), wanted)
    assert len(steps) == 1
    said = (
        "warning: the local engine is slower: a step of LlamaForCausalLM could not be computed without the library's "
    )
    told = rf"modules \(its logits were off by {TIMES[times]}\)\n"
    assert re.fullmatch(re.escape(said) + told, capsys.readouterr().err)


def test_the_first_step_beside_padding_is_compared_too(monkeypatch, steps, capsys):
    """Of a model whose first step without padding was right."""
    model, usual = made(KNOWN["llama"]()), PlainSteps._step
    wanted = by_the_library(model, monkeypatch)

    def without_mask(self):
        step = usual(self)
        step.mask = None
        return step

    monkeypatch.setattr(PlainSteps, "_step", without_mask)
    alone = LocalEngine(lambda: nullcontext(model), None, ())
    alone.generate([Request((3, 4), (1,))], Sampling(5), at_once=1)
    assert len(steps) == 4 and not capsys.readouterr().err
    same(sampled(model), wanted)
    assert "its logits were off by" in capsys.readouterr().err
