from __future__ import annotations

import pytest
from command_lines import BASE, broken_rules, notices, parsed, refusal

from lightrft.args import check, optimizer_steps, parse, prompts_per_step
from lightrft.args.batching import legal_micro_batches, legal_train_batches


def test_the_base_has_nothing_to_say():
    assert notices() == []


@pytest.mark.parametrize(
    "rollout, train, n, epochs, steps, prompts",
    [
        (4, 16, 4, 1, 1, 4),  # exactly on-policy
        (4, 8, 4, 1, 2, 4),  # two optimizer steps a rollout
        (4, 8, 4, 3, 6, 4),
        (4, 48, 4, 1, 1, 12),  # three rollouts a step
        (64, 128, 8, 1, 4, 64),  # the reference document's own example
    ],
)
def test_what_the_batch_sizes_mean(rollout: int, train: int, n: int, epochs: int, steps: int, prompts: int):
    args = parsed(
        f"--rollout_batch_size {rollout} --train_batch_size {train} --n_samples_per_prompt {n} --max_epochs {epochs}"
    )
    assert (optimizer_steps(args), prompts_per_step(args)) == (steps, prompts)
    check(args)


def test_nearest_legal_batches():
    assert legal_train_batches(16, 12, 1) == [8, 16]
    assert legal_train_batches(16, 20, 1) == [16, 32]
    assert legal_train_batches(16, 3, 1) == [2, 4]
    assert legal_train_batches(16, 16, 3) == [48]
    assert legal_train_batches(24, 20, 4) == [12, 24]
    assert legal_train_batches(6, 9, 4) == [12]
    assert legal_micro_batches(16, 3, 1) == [2, 4]
    assert legal_micro_batches(16, 32, 1) == [16]
    assert legal_micro_batches(16, 3, 2) == [2, 4]
    assert legal_micro_batches(12, 5, 2) == [3, 6]
    assert legal_micro_batches(16, 3, 3) == []


def test_more_optimizer_steps_are_a_notice_naming_k():
    assert notices("--train_batch_size 8") == [
        "--train_batch_size 8: each rollout of 4 x 4 = 16 samples is trained on in 2 optimizer steps; "
        "--train_batch_size 16 is exactly on-policy"
    ]
    assert notices("--train_batch_size 48") == []


WORLD = "training on {} processes is not built yet (distributed); start one process"


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
        ("--assume_gpus 8x", "--assume_gpus '8x' is not of the form NxGB; 8x80GB works"),
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


def test_several_processes():
    assert broken_rules("", 2) == [WORLD.format(2)]
    assert broken_rules("", 3) == [
        WORLD.format(3),
        "--train_batch_size 16 is not divisible by --micro_train_batch_size 1 x 3 processes = 3; "
        "nearest: --train_batch_size 48",
        "--rollout_batch_size 4 is not divisible by 3 processes; nearest: --rollout_batch_size 3 or 6",
    ]
    assert broken_rules("", 8)[1:] == [
        "--rollout_batch_size 4 is not divisible by 8 processes; nearest: --rollout_batch_size 8"
    ]


@pytest.mark.parametrize(
    "text, world, line",
    [
        ("--engine_tp_size 3", 8, "--engine_tp_size 3 does not divide 8 processes; use --engine_tp_size 2 or 4"),
        ("--engine_tp_size 16", 8, "--engine_tp_size 16 does not divide 8 processes; use --engine_tp_size 8"),
        ("--sp_size 2", 1, "--sp_size 2 does not divide 1 process; use --sp_size 1"),
        (
            "--engine_tp_size 2 --rollout_batch_size 6 --train_batch_size 24",
            8,
            "--rollout_batch_size 6 is not divisible by 4 engines of 2 processes; nearest: --rollout_batch_size 4 or 8",
        ),
    ],
)
def test_what_the_processes_are_divided_into(text: str, world: int, line: str):
    assert line in broken_rules(text, world)


def test_fewer_engines_and_data_parallel_ranks_than_processes():
    """4 prompts suit 4 engines of 2 processes, and 8 samples 8 processes that share sequences in pairs."""
    for text in ("--engine_tp_size 2 --train_batch_size 8", "--engine_tp_size 8", "--sp_size 2 --engine_tp_size 2"):
        assert all("not built yet" in line for line in broken_rules(text, 8))
    assert broken_rules("--train_batch_size 4", 8)[1].startswith("--train_batch_size 4 is not divisible by")
    sp = "--train_batch_size 4 --sp_size 2 --engine_tp_size 2"
    assert all("not built yet" in line for line in broken_rules(sp, 8))


def test_assumed_gpus_take_the_place_of_this_machine():
    alone, *others = broken_rules("--assume_gpus 3x80GB")
    assert alone == WORLD.format(3).replace("start one process", "use --assume_gpus 1x80GB")
    assert others == broken_rules("", 3)[1:]
    assert notices("--assume_gpus 1x24.5gb") == []


def test_the_programs_know_what_they_can_do():
    assert refusal(check, parsed(), program="vision") == [
        "training of vision-language models is not built yet (vision); train.py trains text models"
    ]


def test_all_broken_rules_together():
    assert len(broken_rules("--top_k 0 --fp16 --fsdp --train_batch_size 12 --lora_rank 1")) == 4


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "--max_steps 5 --num_episodes 20",
            "--num_episodes 20 cannot matter: --max_steps 5 decides when training ends",
        ),
        (
            "--lr_warmup_steps 5 --lr_warmup_ratio 0.1",
            "--lr_warmup_ratio 0.1 cannot matter: --lr_warmup_steps 5 decides the warm-up",
        ),
        (
            "--optimizer sgd --adam_betas 0.9 0.9",
            "--adam_betas 0.9 0.9 cannot matter: --optimizer sgd has no such setting",
        ),
        (
            "--optimizer sgd --adam_epsilon 1e-6",
            "--adam_epsilon 1e-06 cannot matter: --optimizer sgd has no such setting",
        ),
        (
            "--clip_range 0.1",
            "--clip_range 0.1 cannot matter: there is one optimizer step per rollout step, so the ratio is exactly 1",
        ),
        (
            "--clip_range_higher 0.1",
            "--clip_range_higher 0.1 cannot matter: there is one optimizer step per rollout "
            "step, so the ratio is exactly 1",
        ),
        (
            "--kl_estimator k2 --init_kl_coef 0",
            "--kl_estimator k2 cannot matter: --init_kl_coef is 0, so no KL is computed",
        ),
        ("--use_kl_loss --init_kl_coef 0", "--use_kl_loss cannot matter: --init_kl_coef is 0, so no KL is computed"),
        ("--fsdp --zero_stage 3", "--zero_stage 3 cannot matter: --fsdp replaces DeepSpeed ZeRO"),
        (
            "--prompt_split test",
            "--prompt_split test cannot matter: every source of --prompt_data is a file, and a file "
            "is one split (reasoning_gym: and datasets have several)",
        ),
        (
            "--eval_data a.jsonl --eval_split test",
            "--eval_split test cannot matter: every source of --eval_data is a "
            "file, and a file is one split (reasoning_gym: and datasets have several)",
        ),
        ("--eval_split test", "--eval_split test cannot matter: there is no --eval_data"),
        ("--eval_steps 1", "--eval_steps 1 cannot matter: there is no --eval_data"),
        ("--max_eval_samples 1", "--max_eval_samples 1 cannot matter: there is no --eval_data"),
        ("--eval_temperature 1", "--eval_temperature 1.0 cannot matter: there is no --eval_data"),
        ("--eval_batch_size 1", "--eval_batch_size 1 cannot matter: there is no --eval_data"),
        ("--quiet --logging_steps 2", "--logging_steps 2 cannot matter: --quiet prints no line per step"),
        (
            "--kl_estimator k1",
            "--kl_estimator k1 in the loss has an expected gradient of zero, so it is noise and no "
            "penalty; use --kl_estimator k3 or k2",
        ),
        (
            "--top_k 1",
            "--top_k 1 always takes the likeliest token, so all samples of a prompt are alike and have "
            "nothing to learn from; use --top_k -1 or more than 1",
        ),
        ("--actor_learning_rate 1e-3", "--actor_learning_rate 0.001 is outside the recommended range 1e-07 to 5e-06"),
        ("--num_episodes 2", "--num_episodes 2 is outside the recommended range 10 to 100"),
        ("--max_epochs 4", "--max_epochs 4 is outside the recommended range 1 to 3"),
    ],
)
def test_notices_and_problems_under_strict(text: str, line: str):
    assert notices(text) == [line]
    assert broken_rules(f"{text} --strict_args") == [
        f"{line} (refused under --strict_args; remove it, or --strict_args)"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "--num_episodes 20",
        "--max_steps 2",
        "--lr_warmup_ratio 0.1",
        "--optimizer sgd --l2 0.1",
        "--max_epochs 2 --clip_range 0.1",
        "--kl_estimator k2",
        "--kl_estimator k1 --init_kl_coef 0.001 --advantage_estimator reinforce",
        "--use_kl_loss",
        "--no-use_kl_loss --init_kl_coef 0",
        "--zero_stage 3",
        "--prompt_data reasoning_gym:a --prompt_split test",
        "--prompt_data org/name-1.5 --prompt_split test",
        "--eval_data reasoning_gym:a --eval_split train --eval_steps 1 --eval_temperature 1 --eval_batch_size 1",
        "--logging_steps 2",
        "--actor_learning_rate 1e-6",
        "--top_k 1 --n_samples_per_prompt 1 --train_batch_size 4 --advantage_estimator reinforce",
    ],
)
def test_no_notice_where_the_flag_matters(text: str):
    assert notices(text) == []


def test_a_default_is_no_reason_for_a_notice():
    unusual = {"actor_learning_rate": 1e-3, "zero_stage": 3, "fsdp": True}
    assert check(parse(BASE.split(), unusual)) == []


def test_strict_has_nothing_against_a_base_without_notices():
    assert check(parsed("--strict_args"), strict=True) == []
