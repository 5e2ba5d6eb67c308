"""Who computes with how many threads while tokens are decoded."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from lightrft.rollouts.engines import attention
from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.local import LocalEngine, plain
from lightrft.rollouts.engines.threads import MOST, all_threads, one_thread, products_alone
from lightrft.types import Request

SIZES = dict(hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4, vocab_size=300)


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture
def policy(monkeypatch):
    return lambda name: monkeypatch.setenv("OMP_WAIT_POLICY", name)


def made(model) -> list:
    engine = LocalEngine(lambda: nullcontext(model), None, [])  # pyright: ignore[reportArgumentType]
    requests = [Request((5, 6, 7), (1, 2, 3)), Request((8, 9, 10, 11), (4, 5, 6))]
    return sum(engine.generate(requests, Sampling(6), at_once=2), [])


def test_a_step_uses_all_threads_for_its_products_alone_and_draws_the_same(two_threads, policy, monkeypatch):
    model, seen = LlamaForCausalLM(LlamaConfig(**SIZES)).eval(), {"norm": set(), "product": set()}
    product = torch.ops.mkldnn._linear_pointwise

    def spy(name, computes):
        def call(x, *words):
            seen[name].add((x.dim() == 2, torch.get_num_threads()))  # of one token a row, or of prompts
            return computes(x, *words)

        return call

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", spy("product", product))
    monkeypatch.setattr(plain, "rms_norm", spy("norm", plain.rms_norm))
    note, norm = spy("norm", lambda x: None), LlamaRMSNorm.forward
    monkeypatch.setattr(LlamaRMSNorm, "forward", lambda self, x: (note(x), norm(self, x))[1])  # a hook's would be seen
    policy("active")
    usual = made(model)
    assert seen == {"norm": {(False, 2), (True, 2)}, "product": {(False, 2), (True, 2)}}
    seen["norm"].clear()
    policy("PASSIVE")
    again = made(model)
    assert [each.response_ids for each in again] == [each.response_ids for each in usual]
    assert [each.logprobs for each in again] == [pytest.approx(each.logprobs, abs=1e-5) for each in usual]
    assert torch.get_num_threads() == 2
    assert seen == {"norm": {(False, 2), (True, 1)}, "product": {(False, 2), (True, 2)}}


def test_threads_are_all_there_again_after_an_error_and_for_many_rows(two_threads, policy):
    policy("passive")
    with pytest.raises(ZeroDivisionError), products_alone(True), one_thread(1), all_threads():
        assert torch.get_num_threads() == 2
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2
    with products_alone(True):
        with one_thread(MOST + 1), all_threads():
            assert torch.get_num_threads() == 2
        with one_thread(MOST):
            assert torch.get_num_threads() == 1
    with one_thread(1):
        assert torch.get_num_threads() == 2


def test_a_model_whose_weights_are_not_laid_out_shares_everything(two_threads, policy):
    """GPT-2's products are of a class of its own."""
    policy("passive")
    sizes = GPT2Config(n_embd=256, n_layer=1, n_head=4, vocab_size=300, n_positions=64)
    model, seen = GPT2LMHeadModel(sizes).eval(), set()
    model.transformer.h[0].mlp.c_fc.register_forward_pre_hook(lambda *_: seen.add(torch.get_num_threads()))
    made(model)
    assert seen == {2}


def test_attention_over_many_keys_is_shared(two_threads, policy, monkeypatch):
    policy("passive")
    seen, usual = set(), attention.one_token
    monkeypatch.setattr(attention, "one_token", lambda *given: seen.add(torch.get_num_threads()) or usual(*given))
    model = LlamaForCausalLM(LlamaConfig(**SIZES | {"intermediate_size": 1024, "num_key_value_heads": 2})).eval()
    for large, threads in ((1, 2), (1 << 30, 1)):
        monkeypatch.setattr(attention, "LARGE", large)
        seen.clear()
        made(model)
        assert seen == {threads}
