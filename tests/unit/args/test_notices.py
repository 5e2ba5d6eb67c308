"""What is said of flags that were typed, and what is not: a default, a recipe of ours and a paper are not scolded."""

from __future__ import annotations

import pytest
from command_lines import BASE, broken_rules, notices, parsed

from lightrft.args import check, parse
from lightrft.args.rules.ignored_flags import NEEDS
from lightrft.args.surface import FLAGS


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
        ("--actor_learning_rate 1e-3", "--actor_learning_rate 0.001 is outside the recommended range 1e-07 to 0.0002"),
        ("--num_episodes 200", "--num_episodes 200 is outside the recommended range 1 to 100"),
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


def test_no_default_is_outside_its_own_recommended_range():
    """Typed as it stands, nor what the quickstart, the example and GRPO's paper use."""
    for flag in FLAGS.values():
        if flag.record.recommended and not flag.record.required and not flag.record.unbuilt:
            said = notices(f"--{flag.name} {flag.record.default or flag.record.recommended[0]}")
            assert not [line for line in said if "outside" in line], flag.name
    for usual in ("actor_learning_rate 1e-5", "actor_learning_rate 1.5e-4", "init_kl_coef 0.04", "num_episodes 1"):
        assert notices(f"--{usual}") == []


def test_needs_are_of_flags_and_their_reasons_can_be_told():
    values = dict.fromkeys((*FLAGS, "late_step"), "x")
    assert not NEEDS.keys() - FLAGS.keys()
    assert all("{" not in need.otherwise.format(**values) for needs in NEEDS.values() for need in needs)
