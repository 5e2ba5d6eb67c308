"""Layers that look linear and cannot have adapters: by their own code, by their model's, or by PEFT's names."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import transformers
from peft import PeftModel
from torch import nn
from transformers.models.falcon.modeling_falcon import FalconLinear

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.adapter_targets import adaptable
from lightrft.models.adapters import adapt, adapted_layers, adapters_of, told_of_rank
from lightrft.models.given import Given
from lightrft.strategy.base import named_tensors

SMALL = {
    **{"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "initializer_range": 0.3, "pad_token_id": 0},
    **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16},
}
EXPERTS = {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
KINDS = {  # what it has beside SMALL, the layers that have adapters, and a name that cannot have one
    "Glm4Moe": (  # a dense layer, then one of experts; PEFT takes the dense one's names for experts
        {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
        ("q_proj k_proj v_proj o_proj", "gate_proj"),
    ),
    "Phimoe": ({"num_local_experts": 4}, ("q_proj k_proj v_proj o_proj", "router")),  # it answers more than a product
    "Mamba": ({"state_size": 8}, ("in_proj", "out_proj")),
    "Jamba": (  # a layer of Mamba's, then one of attention
        {**{"attn_layer_period": 2, "attn_layer_offset": 1, "use_mamba_kernels": False}, "num_experts": 1},
        ("in_proj x_proj out_proj q_proj k_proj v_proj o_proj gate_proj up_proj down_proj", "dt_proj"),
    ),
}  # fmt: skip


def made(kind: str):
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **KINDS[kind][0]})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def adapted(model, **flags):
    adapt(model, ModelArgs(pretrain="none", **{"lora_rank": 2, **flags}), seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(len(name)))
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(4, 15)[None], use_cache=False).logits


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_that_has_one_computes_with_it(kind, tmp_path):
    """So that what is sampled from, what is written and what PEFT opens are the model that trains."""
    base = made(kind)
    model = adapted(deepcopy(base))
    ends = set(KINDS[kind][1][0].split())
    assert {name.rpartition(".")[2] for name in adapted_layers(model)} == ends
    wanted = logits(model)
    adapters = adapters_of(model)
    adapters.save(((n, v) for n, v in named_tensors(model) if n in adapters.names), Given(), tmp_path)
    opened = PeftModel.from_pretrained(deepcopy(base), tmp_path).eval()
    assert torch.allclose(logits(opened), wanted, atol=1e-5)
    again = deepcopy(base)
    adapt(again, ModelArgs(pretrain="none", lora_path=str(tmp_path)), seed=1)
    assert torch.allclose(logits(again), wanted, atol=1e-5)
    alone = deepcopy(base)
    alone.load_state_dict(dict(adapters.merged(named_tensors(model))), strict=False)
    assert torch.allclose(logits(alone), wanted, atol=1e-4) and not torch.allclose(logits(base), wanted, atol=1e-2)
    for layer in adapted_layers(model).values():  # each of them by itself
        with torch.no_grad():
            layer.lora_B["default"].weight.mul_(2)
        assert not torch.equal(logits(model), wanted), layer
        wanted = logits(model)


@pytest.mark.parametrize("kind", KINDS)
def test_the_others_are_refused_by_name(kind):
    can, name = KINDS[kind][1]
    line = f"^--target_modules {name}: .*{name} cannot have an adapter; those that can have one: .*{min(can.split())}"
    with pytest.raises(Refused, match=line):
        adapted(made(kind), target_modules=("in_proj" if "in_proj" in can else "q_proj", name))


def test_what_looks_odd_and_is_a_product_all_the_same():
    """A dtype is read, a part for models that were cut, the weights' beginning; a class of its own that multiplies."""

    class Twice(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.whole, self.part, self.passed = (nn.Linear(2, 2) for _ in range(3))
            nn.init.zeros_(self.whole.weight)
            self.own, self.twice = FalconLinear(2, 2), Twice(2, 2)

        def forward(self, x):
            parts = [nn.functional.linear(x, part) for part in self.part.weight.split(1)]
            x = self.whole(x.to(self.whole.weight.dtype)) + self.part(x) + sum(parts) + self.own(x) + self.twice(x)
            return nn.functional.linear(x, self.passed.weight)

    model = Reads()
    model.config = transformers.LlamaConfig()
    assert adaptable(model) == ["whole", "part", "own"]


@pytest.mark.parametrize("targets, most", ((("k_proj",), 16), (("k_proj", "q_proj"), 32), (("up_proj",), 32)))
def test_the_largest_rank_is_that_of_the_layer_with_the_largest_smaller_side(targets, most):
    """q_proj is 32 by 32, k_proj 16 by 32, up_proj 48 by 32."""
    adapted(made("Jamba"), lora_rank=most, target_modules=targets)
    with pytest.raises(Refused, match=rf"--lora_rank {most + 1} .*; use at most {most}$"):
        adapted(made("Jamba"), lora_rank=most + 1, target_modules=targets)


@pytest.mark.parametrize(
    ("rank", "targets", "smaller"),
    ((16, ("k_proj", "q_proj"), ""), (17, ("k_proj", "q_proj"), "1 of the 2"), (32, ("all-linear",), "2 of the 13")),
)
def test_a_rank_that_some_layers_cannot_use_is_told(rank, targets, smaller):
    """k_proj and v_proj are 16 by 32, the others of Mamba's layer and of attention's have no side below 32."""
    flags = ModelArgs(pretrain="none", lora_rank=rank, target_modules=targets)
    what = f"is above the smaller side of {smaller} layers that it adapts, beyond which a rank gains nothing"
    told = [f"--lora_rank {rank} {what}; all can use up to 16"]
    assert told_of_rank(adapted(made("Jamba"), lora_rank=rank, target_modules=targets), flags) == (
        smaller and told or []
    )
