"""Rules between flags that hold for all processes, each with the one line that a broken one gives."""

from __future__ import annotations

import pytest
from command_lines import broken_rules, notices, parsed, refusal

from lightrft.args import check


def test_the_base_has_nothing_to_say():
    assert notices() == []


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "--train_batch_size 12",
            "--train_batch_size 12 neither divides nor is a multiple of --rollout_batch_size 4 x "
            "--n_samples_per_prompt 4 = 16; nearest: --train_batch_size 8 or 16",
        ),
        (
            "--micro_train_batch_size 3",
            "--train_batch_size 16 is not divisible by --micro_train_batch_size 3 x 1 "
            "process = 3; nearest: --train_batch_size 48, or --micro_train_batch_size 2 or 4",
        ),
        (
            "--n_samples_per_prompt 1 --train_batch_size 4",
            "--n_samples_per_prompt 1: --advantage_estimator group_norm "
            "compares the samples of one prompt, so it needs at least --n_samples_per_prompt 2",
        ),
        (
            "--max_len 100 --prompt_max_len 100",
            "--prompt_max_len 100 leaves no room for a response in --max_len 100; "
            "use --prompt_max_len 50 or --max_len 200",
        ),
        (
            "--max_len 100 --prompt_max_len 60 --max_new_tokens 41",
            "--max_new_tokens 41 does not fit into --max_len 100 "
            "- --prompt_max_len 60 = 40; use --max_new_tokens 40 or --max_len 101",
        ),
        (
            "--no-use_kl_loss",
            "--no-use_kl_loss with --init_kl_coef 0.001: --advantage_estimator group_norm puts no KL "
            "into the reward, so KL has no place; use --init_kl_coef 0 or --use_kl_loss",
        ),
        ("--fsdp_cpu_offload", "--fsdp_cpu_offload needs --fsdp; add --fsdp or remove it"),
        ("--fp16 --bf16", "--fp16 and --bf16 exclude each other; use --bf16 alone, or --fp16 --no-bf16"),
        ("--fp16 --fsdp", "--fp16 needs loss scaling, which --fsdp has not; use --bf16 with --fsdp, or --no-fsdp"),
        ("--lora_rank 16", "--lora_rank is not built yet (distributed); remove it"),
        ("--no-adam_offload", "--adam_offload is not built yet (distributed); remove it"),
        (
            "--temperature_schedule linear",
            "--temperature_schedule linear needs --temperature_final, the temperature at its end",
        ),
        (
            "--overlong_buffer --max_new_tokens 100",
            "--overlong_buffer_len 1024 is longer than the response budget of 100 tokens; use --overlong_buffer_len 25",
        ),
        (
            "--prompt_data_probs 0.5 0.5",
            "--prompt_data_probs has 2 values for 1 source of --prompt_data; it has nothing to mix in one source; "
            "remove it",
        ),
        (
            "--prompt_data_probs 1",
            "--prompt_data_probs has 1 value for 1 source of --prompt_data; it has nothing to mix in one source; "
            "remove it",
        ),
        (
            "--prompt_data a.jsonl b.jsonl --prompt_data_probs 0.5",
            "--prompt_data_probs has 1 value for 2 sources of --prompt_data; it takes 2, one for each",
        ),
        ("--assume_gpus 8x", "--assume_gpus '8x' is not of the form NxGB; 1x80GB works"),
        ("--top_k 0", "--top_k 0 leaves no token to sample; use -1 (off) or at least 1"),
    ],
)
def test_broken_rules(text: str, line: str):
    assert broken_rules(text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        "--train_batch_size 2 --micro_train_batch_size 2",
        "--micro_train_batch_size 4",
        "--n_samples_per_prompt 1 --train_batch_size 4 --advantage_estimator reinforce",
        "--max_len 100 --prompt_max_len 99",
        "--max_len 100 --prompt_max_len 60 --max_new_tokens 40",
        "--no-use_kl_loss --init_kl_coef 0",
        "--no-use_kl_loss --advantage_estimator reinforce",
        "--fsdp_cpu_offload --fsdp",
        "--fp16 --no-bf16",
        "--fp16",
        "--bf16 --fsdp",
        "--engine_type local",
        "--top_k 5",
    ],
)
def test_kept_rules(text: str):
    check(parsed(text))


def test_reward_sources():
    no_reward = parsed().with_(reward_fn=())
    (line,) = refusal(check, no_reward)
    assert line.startswith("there is no reward: give --reward_fn ")
    assert all(way in line for way in ("--reward_pretrain", "--remote_rm_url", "--prompt_data reasoning_gym:<task>"))
    check(no_reward.with_(prompt_data=("reasoning_gym:chain_sum",)))
    for other in ("reward_pretrain", "remote_rm_url"):
        assert refusal(check, no_reward.with_(**{other: ("x",)})) == [
            f"--{other} is not built yet (rewards); remove it"
        ]


def test_the_programs_know_what_they_can_do():
    assert refusal(check, parsed(), program="vision") == [
        "training of vision-language models is not built yet (vision); train.py trains text models"
    ]


def test_all_broken_rules_together():
    assert len(broken_rules("--top_k 0 --fp16 --fsdp --train_batch_size 12 --lora_rank 1")) == 4
