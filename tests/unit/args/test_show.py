from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_lines import from_yaml, parsed

from lightrft.args.effective import effective
from lightrft.args.show import as_dict, print_args
from lightrft.args.surface import FLAGS


def line_of(text: str, flag: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [flag]]
    return line.split(maxsplit=2)


def test_text_shows_value_source_and_what_is_hidden(tmp_path: Path):
    args = from_yaml(tmp_path, "\nactor_learning_rate: 3e-5\n", "--actor_learning_rate 1e-6 --stop a b --fsdp")
    text = print_args(args, "text").replace(f"{tmp_path}/", "")
    assert line_of(text, "actor_learning_rate") == [
        "actor_learning_rate", "1e-06", "cli (hides run.yaml:2 = 3e-05)"
    ]  # fmt: skip
    assert line_of(text, "fsdp")[1:] == ["true", "cli"]
    assert line_of(text, "log_dir")[1:] == ["out/logs", "follows --save_path"]
    assert line_of(text, "max_steps")[1:] == ["none", "default (as many as --num_episodes takes)"]
    assert "  stop " in text and " a b " in text
    headings = [line for line in text.splitlines() if not line.startswith(" ")]
    assert headings[0] == "Model" and headings[-1] == "Run control" and len(headings) == 15
    assert len(text.splitlines()) == 15 + len(FLAGS)


def test_json_is_what_run_json_keeps(tmp_path: Path):
    args = from_yaml(tmp_path, "seed: 1\n", "--seed 2 --reward_weights a=2 --stop x --advantage_estimator gspo")
    kept = json.loads(print_args(args, "json"))
    assert kept == as_dict(args) and set(kept) == set(FLAGS)
    assert kept["seed"] == {"value": 2, "source": "cli", "hides": [{"source": f"{tmp_path}/run.yaml:1", "value": 1}]}
    assert kept["reward_weights"] == {"value": {"a": 2.0}, "source": "cli"}
    assert kept["stop"] == {"value": ["x"], "source": "cli"}
    assert kept["clip_range"] == {"value": 3e-4, "source": "default:gspo"}
    assert kept["bf16"] == {"value": "auto", "source": "default (by the hardware)"}
    assert kept["loss_agg_mode"] == {"value": "seq-mean-token-mean", "source": "default:gspo"}
    assert kept["eval_n_samples"] == {"value": 1, "source": "default", "built": False}
    assert kept["max_steps"] == {"value": None, "source": "default (as many as --num_episodes takes)"}


def test_texts_with_white_space_are_quoted():
    args = parsed().with_(system_prompt="You are\na calculator.", stop=("\n",))
    text = print_args(args, "text")
    assert r"'You are\na calculator.'" in text and r"'\n'" in text


@pytest.mark.parametrize(
    "text, flag, shown",
    [
        ("", "loss_agg_mode", ["seq-mean-token-mean", "default:group_norm"]),
        ("--advantage_estimator reinforce", "loss_agg_mode", ["token-mean", "default:reinforce"]),
        ("--loss_agg_mode token-mean", "loss_agg_mode", ["token-mean", "cli"]),
        ("", "use_kl_loss", ["true", "default:group_norm"]),
        ("--advantage_estimator reinforce", "use_kl_loss", ["false", "default:reinforce"]),
        ("--init_kl_coef 0", "use_kl_loss", ["false", "follows --init_kl_coef"]),
        ("--advantage_estimator reinforce", "kl_estimator", ["k1", "default:reinforce"]),
        ("", "kl_estimator", ["k3", "default"]),
        ("", "advantages_norm", ["false", "default:group_norm"]),
        ("", "bf16", ["auto", "default (by the hardware)"]),
        ("--fp16", "bf16", ["false", "follows --fp16"]),
        ("--no-bf16", "bf16", ["false", "cli"]),
        ("", "kl_target", ["0.0", "default"]),
        ("", "critic_pretrain", ["none", "default (no critic)"]),
        ("--advantage_estimator gae", "critic_pretrain", ["tiny", "follows --pretrain"]),
        ("", "eval_batch_size", ["4", "follows --rollout_batch_size"]),
        ("", "max_new_tokens", ["2048", "follows --max_len and --prompt_max_len"]),
        ("--ckpt_path x", "ckpt_path", ["x", "cli"]),
        ("", "ckpt_path", ["out/checkpoints", "follows --save_path"]),
        ("", "temperature_final", ["1.0", "follows --temperature"]),
        ("--temperature_schedule linear --temperature_final 0.5", "temperature_final", ["0.5", "cli"]),
        ("--use_wandb p", "wandb_run_name", ["out", "follows --save_path"]),
        ("--label_key answer", "reference_key", ["answer", "follows --label_key"]),
        ("", "eval_n_samples", ["1", "default, not built yet"]),
        ("--eval_n_samples 8", "eval_n_samples", ["8", "cli, not built yet"]),
        ("", "lora_alpha", ["16.0", "default"]),
        ("--lora_rank 8", "lora_learning_rate", ["5e-06", "default (ten times full training's)"]),
        ("--lora_rank 8 --actor_learning_rate 1e-6", "lora_learning_rate", ["1e-06", "follows --actor_learning_rate"]),
        ("--lora_rank 8 --lora_learning_rate 1e-4", "lora_learning_rate", ["0.0001", "cli"]),
        ("--lora_rank 8 --load_in_4bit", "bits", ["4", "follows --load_in_4bit"]),
        ("--bits 16", "bits", ["16", "cli"]),
        ("", "dual_clip", ["none", "default (no dual clip)"]),
    ],
)
def test_what_is_going_to_be_used_and_from_where(text: str, flag: str, shown: list[str]):
    assert line_of(print_args(parsed(text), "text"), flag)[1:] == shown


def test_null_in_yaml_is_what_the_default_would_be(tmp_path: Path):
    args = from_yaml(tmp_path, "loss_agg_mode: null\nbf16: null\n", "--advantage_estimator reinforce")
    assert (
        effective(args, "loss_agg_mode") == ("token-mean", "default:reinforce") and effective(args, "bf16")[0] == "auto"
    )


def test_every_value_that_follows_from_others_says_so():
    args = parsed()
    for flag in FLAGS.values():
        if flag.record.derive is not None and flag.name != "kl_estimator":
            assert effective(args, flag.name)[1].startswith("follows --"), flag.name


def test_what_differs_from_the_defaults_alone(tmp_path: Path):
    args = from_yaml(tmp_path, "mode: local\n", "--advantage_estimator gspo --seed 7 --print_args changed")
    text = print_args(args, "changed")
    flags = {line.split()[0] for line in text.splitlines() if line.startswith(" ")}
    preset = {flag for flag, source in args.sources.items() if source.where.startswith("preset")}
    typed = {"pretrain", "prompt_data", "save_path", "reward_fn", "advantage_estimator", "seed", "config", "mode"}
    assert preset and flags == {
        *preset,
        *typed,
        "rollout_batch_size",
        "train_batch_size",
        "clip_range",
        "clip_range_higher",
    }
    assert "Sampling" not in text.splitlines()
