"""Models of some thousand parameters with lively weights, batches by hand, and a strategy without processes."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
from indexed import indexed

from lightrft.ranks.base import ONE_RANK

VOCABULARY = 61
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,  # the usual 0.02 would give nearly uniform distributions
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def _config(kind: str):
    import transformers as t

    if kind == "gpt2":
        return t.GPT2Config(
            vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=128, initializer_range=0.3,
            bos_token_id=1, eos_token_id=2, pad_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        )  # fmt: skip
    window = {"sliding_window": 4}
    made = {
        "llama": lambda: t.LlamaConfig(**SMALL),
        "qwen2": lambda: t.Qwen2Config(**SMALL, tie_word_embeddings=True),
        "gemma2": lambda: t.Gemma2Config(**SMALL, **window, final_logit_softcapping=2.0, query_pre_attn_scalar=16),
        "gemma3": lambda: t.Gemma3TextConfig(
            **SMALL, **window, query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"]
        ),
        "mistral": lambda: t.MistralConfig(**SMALL, **window),
    }
    return made[kind]()


@pytest.fixture(scope="session")
def causal_model():
    """kind -> a tiny causal model in float32, made once a session: nobody may leave it changed."""
    import torch
    from transformers import AutoModelForCausalLM

    made = {}

    def make(kind: str):
        if kind not in made:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(5)
                made[kind] = AutoModelForCausalLM.from_config(_config(kind), dtype=torch.float32).eval()
        return made[kind]

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_folder / "model", dtype=torch.float32).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder):
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast.from_pretrained(tiny_folder / "model")


@pytest.fixture
def batch_of():
    """Rows of (token ids, response mask) -> Batch, right-padded; further columns as given."""
    import torch

    from lightrft.batch import Batch

    def make(rows, *, width=None, temperature=1.0, pad=0, **columns):
        width = width or max(len(ids) for ids, _ in rows)

        def padded(values, fill):
            return torch.tensor([[*row, *[fill] * (width - len(row))] for row in values])

        given = {
            "rollout_logprobs": torch.zeros(len(rows), width),
            "rewards": torch.zeros(len(rows), dtype=torch.float64),
            "group": torch.arange(len(rows)),
            "truncated": torch.zeros(len(rows), dtype=torch.bool),
            "prompt_lengths": torch.tensor([[*mask, 1].index(1) for _, mask in rows]),
            **columns,
        }
        made = Batch(
            input_ids=padded([ids for ids, _ in rows], pad),
            lengths=torch.tensor([len(ids) for ids, _ in rows]),
            response_mask=padded([mask for _, mask in rows], 0),
            temperature=temperature,
            **given,
        )
        return indexed(made)

    return make


class AloneStrategy:
    """What the stages ask of a strategy, for one process and without torch.distributed: gradients sum, SGD steps."""

    def __init__(self):
        import torch

        self.world = SimpleNamespace(device=torch.device("cpu"), rank=0, size=1, dp_size=1)
        self.ranks = ONE_RANK
        self.losses = []

    def backward(self, handle, loss, *, last):
        self.losses.append(loss.item())
        loss.backward()

    def step(self, handle):
        from lightrft.strategy.base import StepReport

        return StepReport(grad_norm=2.0, lr=0.5, skipped=False)

    def gathered(self, handle):
        return nullcontext(handle.model)


@pytest.fixture
def alone():
    return AloneStrategy()


@pytest.fixture
def make_rollout():
    """A rollout from what a test cares about: its lengths, reward and position."""
    from lightrft.types import Prompt, Reward, Rollout

    def make(prompt_ids, response_ids, *, total=None, parts=None, error=None, position=0, finish="stop", logprobs=None):
        invalid = Reward(float("nan"), {}, error)
        reward = invalid if error else Reward(total, parts or {"rule": total}) if total is not None else None
        return Rollout(
            prompt=Prompt(id=f"p{position}", messages=(), position=position),
            group=position,
            prompt_ids=tuple(prompt_ids),
            response_ids=tuple(response_ids),
            response="",
            response_mask=(1,) * len(response_ids),
            rollout_logprobs=tuple(logprobs or [-0.5] * len(response_ids)),
            finish_reason=finish,
            policy_version=0,
            reward=reward,
        )

    return make
