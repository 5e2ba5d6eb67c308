"""What users get wrong: one line with the flag and a remedy, the right exit code, nothing half-written."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from refusals import RUN, assert_failed, assert_refused
from runs import all_rows, read_json, rows, train, weights

# The data


def test_missing_and_empty_data(here):
    assert_refused("--prompt_data nowhere.jsonl", "--prompt_data nowhere.jsonl", "no such file")
    assert_refused("--eval_data nowhere.jsonl", "--eval_data nowhere.jsonl", "no such file")
    Path("none.jsonl").write_text("\n\n")
    assert_refused("--prompt_data none.jsonl", "--prompt_data none.jsonl")
    assert_refused("--eval_data none.jsonl", "--eval_data none.jsonl")
    assert_refused("--prompt_data add.csv", "--prompt_data add.csv", "no such file")
    assert_refused("--prompt_data add.txt", "--prompt_data add.txt", "unsupported file type", ".jsonl")


def test_bad_rows_are_placed(here):
    good = json.dumps({"prompt": "1+1=", "label": "2"})
    Path("bad.jsonl").write_text(f'{good}\n{{"prompt": "1+\n{good}\n')
    assert_refused("--prompt_data bad.jsonl", "--prompt_data bad.jsonl:2", "JSON")
    Path("bad.jsonl").write_text(f'{good}\n{good}\n{{"question": "1+1="}}\n')
    assert_refused("--prompt_data bad.jsonl", "bad.jsonl:3", "no key 'prompt'", "--input_key")
    Path("bad.jsonl").write_text(f'{good}\n{{"prompt": "1+1="}}\n')
    assert_refused(
        "--prompt_data bad.jsonl", "bad.jsonl:2", "--reward_fn last_number needs a reference", "--on_bad_row"
    )
    assert "bad.jsonl" not in "".join(train(f"{RUN} --prompt_data bad.jsonl --on_bad_row skip --dry_run").problems)


def test_a_label_that_no_row_has(here):
    assert_refused("--label_key captial --reward_fn shaped.py:length", "--label_key captial", "columns there: label")


def test_a_reward_that_exits_is_an_invalid_sample(here):
    Path("bye.py").write_text("import sys\n\n\ndef bye(responses):\n    sys.exit(0)\n")
    ended = train(f"{RUN} --fsdp --reward_fn bye.py:bye --max_steps 1")
    assert ended.code == 1 and "every reward of step 1 is invalid" in ended.err and "SystemExit" in ended.err


def test_paths_and_variables_that_no_system_has(here, monkeypatch):
    for flag in ("save_path", "pretrain", "prompt_data"):
        assert_refused(f"--{flag} {'x' * 5000}", "a path is too long", "give a shorter one")
    Path("nul.yaml").write_text('reward_fn: "a\\0b.py:f"\n')
    assert_refused("--config nul.yaml", "nul.yaml:1: reward_fn", "NUL character")
    monkeypatch.setenv("WORLD_SIZE", "x")
    assert_refused("", "WORLD_SIZE='x'", "unset it")


def test_rows_that_python_or_the_tokenizer_cannot_read(here):
    Path("huge.jsonl").write_text('{"prompt": "1+1=", "label": ' + "1" * 5000 + "}\n")
    assert_refused("--prompt_data huge.jsonl", "huge.jsonl:1", "invalid JSON")
    Path("half.jsonl").write_text('{"prompt": "\\ud800 1+1=", "label": "2"}\n')
    assert_refused("--prompt_data half.jsonl", "half.jsonl:1", "which is half of a character")


def test_prompt_too_long(here):
    Path("long.jsonl").write_text(json.dumps({"prompt": "1+" * 20 + "1=", "label": "21"}) + "\n")
    assert_refused("--prompt_data long.jsonl", "long.jsonl:1", "--prompt_max_len 16", "--prompt_max_len 42")
    assert_refused("--eval_data long.jsonl", "--eval_data", "long.jsonl:1", "--prompt_max_len 42")


# The rewards


def test_a_group_of_one(here):
    assert_refused(
        "--n_samples_per_prompt 1 --train_batch_size 4 --micro_train_batch_size 4",
        "--n_samples_per_prompt 1",
        "--n_samples_per_prompt 2",
        "group_norm",
    )


def test_reward_functions_that_cannot_be_loaded(here):
    assert_refused("--reward_fn nowhere.py:length", "--reward_fn nowhere.py:length", "no such file")
    assert_refused("--reward_fn shaped.py:lenght", "--reward_fn shaped.py:lenght", "no function 'lenght'", "length")
    assert_refused("--reward_fn shaped.py", "--reward_fn shaped.py", "shaped.py:<function>")
    assert_refused("--reward_fn last_nummer", "--reward_fn last_nummer", "last_number")
    Path("wrong.py").write_text("def f(responses, answers): return [0.0]\n")
    assert_refused("--reward_fn wrong.py:f", "--reward_fn wrong.py:f", "'answers'", "references")
    Path("wrong.py").write_text("import no_such_module\n")
    assert_refused("--reward_fn wrong.py:f", "--reward_fn wrong.py:f", "no_such_module")
    assert_refused("--reward_weights nothing=2", "--reward_weights nothing=2.0", "last_number")


@pytest.mark.parametrize("strategy", ("--fsdp", "--no-fsdp"))
def test_a_reward_that_raises(here, strategy):
    assert_failed(
        f"--reward_fn shaped.py:raises {strategy}",
        "every reward of step 1 is invalid",
        "KeyError",
        "shaped.py:",
        "--reward_fn",
    )


def test_rewards_that_are_all_nan(here):
    assert_failed("--reward_fn shaped.py:nan", "every reward of step 1 is invalid", "nan", "16 of 16", "--reward_fn")


def test_rewards_that_are_no_list_of_numbers(here):
    assert_failed("--reward_fn shaped.py:too_few", "--reward_fn shaped.py:too_few", "values; expected")
    shutil.rmtree("run")
    assert_failed("--reward_fn shaped.py:texts", "--reward_fn shaped.py:texts", "'good' (str)", "expected a number")


@pytest.mark.parametrize("strategy", ("--fsdp", "--no-fsdp"))
def test_samples_without_a_reward_are_counted_and_not_trained(here, strategy):
    """A quarter is NaN: the run goes on, says how many, and what those samples contain cannot matter."""
    ended = train(f"{RUN} {strategy} --reward_fn shaped.py:nan_for_some --init_kl_coef 0")
    assert ended.code == 0
    assert [row["reward/invalid_frac"] for row in rows(Path("run"))] == [0.25, 0.25]
    assert all(row["update/idle_rows"] >= 4 for row in all_rows(Path("run")))
    assert all(row["policy/grad_norm"] > 0 for row in rows(Path("run")))
    assert read_json(Path("run/summary.json"))["eval"]["after"]["invalid"] == 6  # of 23


# Paths


def test_a_save_path_that_cannot_be_written(here):
    Path("file").write_text("")
    assert_refused("--save_path file/run", "--save_path file/run", "is a file, not a folder", "choose another path")
    assert_refused("--log_dir file/logs", "--log_dir file/logs", "is a file, not a folder")
    assert_refused("--ckpt_path file/checkpoints", "--ckpt_path file/checkpoints", "is a file, not a folder")
    assert_refused("--save_path file", "--save_path file", "is a file, not a folder")


def test_a_save_path_that_holds_a_run(here):
    assert train("--fsdp --save_path old --max_steps 1 --quiet").code == 0
    before = weights(here / "old")
    assert_refused(
        "--save_path old", "--save_path old already holds a run", "--load_checkpoint", "choose another --save_path"
    )
    none = "there is no checkpoint in old/checkpoints to go on from; choose another --save_path"
    assert_refused("--save_path old --load_checkpoint", "--save_path old already holds a run", none)
    assert weights(here / "old") == before


# The command line


def test_misspelt_flag(here):
    assert_refused("--train_batchsize 8", "--train_batchsize is not a flag", "nearest: --train_batch_size")


def test_misspelt_yaml_key(here):
    Path("run.yaml").write_text("seed: 1\n\nsampling:\n  temperatur: 0.7\n")
    assert_refused("--config run.yaml", "run.yaml:4: temperatur is not a flag", "nearest: temperature")


def test_all_problems_at_once(here):
    """Unknown flag, wrong type, bound, choice, YAML and two rules between flags: a line each."""
    Path("run.yaml").write_text("lerning_rate: 1\n")
    found = assert_refused(
        "--config run.yaml --sede 1 --top_p 1.5 --max_steps many --lr_scheduler sqaure --train_batch_size 10 --top_k 0",
        "run.yaml:1: lerning_rate",
        "--sede is not a flag; nearest: --seed",
        "--top_p 1.5 is out of bounds",
        "--max_steps must be an integer, got 'many'",
        "--lr_scheduler sqaure is not one of its choices",
        "--train_batch_size 10 neither divides nor is a multiple",
        "--top_k 0",
        lines=8,
    )
    assert len(set(found)) == len(found)


def test_missing_flags(here):
    ended = train("", base="--fsdp")
    assert ended.code == 2
    for flag in ("pretrain", "prompt_data", "save_path", "rollout_batch_size", "train_batch_size"):
        assert f"--{flag} is required" in ended.err


def test_flags_that_are_not_built(here):
    assert_refused("--rm_use_engine", "--rm_use_engine is not built yet", "remove it")
    assert_refused("--judge_url http://x", "--judge_url is not built yet")


def test_processes_that_nobody_started(here, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert_refused("", "WORLD_SIZE=2", "RANK is not set", "start them with torchrun", "unset it")


def test_fp16_without_a_gpu(here):
    assert_refused("--no-fsdp --fp16", "--fp16 needs a GPU", "--bf16")


def test_without_deepspeed(here, monkeypatch):
    """A run with it is refused before anything is written; one with --fsdp does not miss it, nor one process in
    float32, whose weights DeepSpeed would not touch."""
    for name in [name for name in sys.modules if name.split(".")[0] == "deepspeed"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    for flags in ("--bf16", "--zero_stage 3", "--adam_offload"):
        assert_refused(f"--no-fsdp {flags}", "DeepSpeed is not installed", "--fsdp", "pip install deepspeed")
    for strategy in ("--fsdp --bf16", "--no-fsdp --no-bf16"):
        assert train(f"{RUN} {strategy} --save_path run{len(strategy)}").code == 0
