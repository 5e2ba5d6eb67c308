"""What processes cannot share the sequences of (`--sp_size`): said from configurations, before any weight is read."""

from __future__ import annotations

import math

import pytest
import transformers

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.models.reach import reach
from lightrft.models.sequence_checks import check_sequences

SMALL = {"hidden_size": 48, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 16, "head_dim": 8}
HEADS = {"num_attention_heads": 6, "num_key_value_heads": 2}
YARN = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4, "original_max_position_embeddings": 8}


def saved(folder, kind: str, **changes) -> str:
    config = getattr(transformers, f"{kind}Config")(**{**SMALL, **HEADS, **changes})
    config.save_pretrained(folder)
    return str(folder)


def check(pretrain: str, sp_size: int, processes: int = 12, critic: str | None = None) -> str | None:
    """What is refused, rows being of at most 16 tokens."""
    args = ModelArgs(pretrain=pretrain, critic_pretrain=critic, prompt_max_len=8, max_new_tokens=8)
    try:
        check_sequences(args, sp_size, processes, critic=critic is not None)
    except Refused as refused:
        return str(refused)
    return None


@pytest.mark.parametrize(
    ("sp_size", "processes", "others"), [(4, 12, "3 or 6"), (4, 8, "2"), (12, 12, "6"), (5, 5, "1"), (8, 24, "6")]
)
def test_heads_that_do_not_divide(tmp_path, sp_size, processes, others):
    """6 heads; what would work divides the processes, too."""
    model = saved(tmp_path, "Qwen2")
    line = f"--sp_size {sp_size} does not divide the 6 attention heads of --pretrain {model}; use --sp_size {others}"
    assert check(model, sp_size, processes) == line


@pytest.mark.parametrize("sp_size", [2, 3, 6])
def test_heads_that_divide_whatever_those_of_keys_are(tmp_path, sp_size):
    assert check(saved(tmp_path, "Qwen2"), sp_size) is None


def test_the_critic_has_heads_of_its_own(tmp_path):
    """6 and 4: what would work divides both."""
    policy = saved(tmp_path / "policy", "Qwen2")
    critic = saved(tmp_path / "critic", "Llama", num_attention_heads=4)
    line = f"--sp_size 3 does not divide the 4 attention heads of --critic_pretrain {critic}; use --sp_size 2"
    assert check(policy, 3, critic=critic) == line
    assert check(policy, 2, critic=critic) is None


@pytest.mark.parametrize(
    ("kind", "changes", "fault"),
    [
        ("Bloom", {"n_head": 6}, "(bloom) has an attention that cannot be replaced by one over several processes"),
        ("Gemma2", {}, "(gemma2) has an attention that cannot be replaced by one over several processes"),
        ("GptOss", {}, "(gpt_oss) has an attention that cannot be replaced by one over several processes"),
        ("Mistral", {"sliding_window": 17}, "has layers that see 17 tokens, and rows have up to 18"),
        ("Gemma3Text", {"sliding_window": 4}, "has layers that see 4 tokens, and rows have up to 18"),
        (
            "Llama",
            {"rope_parameters": {**YARN, "rope_type": "dynamic"}},
            "scales its positions by the row's length beyond 8 tokens, and rows have up to 18",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isalnum() else "",
)
def test_models_whose_sequences_nobody_can_share(tmp_path, kind, changes, fault):
    """Rows of 16 tokens are padded to 18, which 3 divides."""
    model = saved(tmp_path, kind, **changes)
    assert check(model, 3) == f"--sp_size 3: --pretrain {model} {fault}; use --sp_size 1"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("Mistral", {"sliding_window": 18}),
        ("Mistral", {"sliding_window": None}),
        ("Llama", {"rope_parameters": YARN}),
        ("Llama", {"rope_parameters": {**YARN, "rope_type": "dynamic", "original_max_position_embeddings": 18}}),
    ],
)
def test_windows_that_hold_every_row_and_positions_that_stay(tmp_path, kind, changes):
    assert check(saved(tmp_path, kind, **changes), 3) is None


def test_how_far_back_layers_look():
    t, layers = transformers, {"num_hidden_layers": 2}
    assert reach(t.LlamaConfig()) == reach(t.Qwen2Config(sliding_window=4)) == math.inf
    assert reach(t.MistralConfig(sliding_window=4)) == 4
    mixed = ["sliding_attention", "full_attention"]
    assert reach(t.Gemma3TextConfig(**layers, sliding_window=7, layer_types=mixed)) == 7
    assert reach(t.Llama4TextConfig(**layers, attention_chunk_size=5, layer_types=["chunked_attention"] * 2)) == 5
    assert reach(t.Qwen3NextConfig(**layers, layer_types=["linear_attention", "full_attention"])) == 0
