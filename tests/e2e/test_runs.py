"""Whole runs: repeated, killed and resumed, stopped, learning; and what they leave behind."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
from statistics import fmean

import pytest
from runs import ROOT, all_rows, call, files, read_json, rows, start, train, wait_for_steps, weights

PLAIN, FSDP2, DEEPSPEED = "--fsdp", "--fsdp --bf16", "--zero_stage 3"  # of one process, which on a CPU has float32
each_strategy = pytest.mark.parametrize("strategy", (PLAIN, FSDP2, DEEPSPEED))
in_float32 = pytest.mark.parametrize("strategy", (PLAIN, DEEPSPEED))
INTERRUPTED = [(name, signal.SIGKILL) for name in (PLAIN, FSDP2, DEEPSPEED)] + [(FSDP2, signal.SIGTERM)]
LONG = "--max_steps 12 --save_steps 2 --reward_fn shaped.py:slow --eval_steps 5 --train_batch_size 8 --quiet"


def assert_same_run(left, right) -> None:
    assert rows(left) == rows(right)
    assert weights(left) == weights(right)
    assert read_json(left / "summary.json") == read_json(right / "summary.json")


@each_strategy
def test_one_seed_gives_one_run(here, strategy):
    """Two runs agree in every metric and every bit; another seed does not."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        flags = f"{strategy} --max_steps 4 --save_path {name} --seed {seed} --train_batch_size 8 --quiet"
        assert train(flags).code == 0
    assert_same_run(here / "a", here / "b")
    assert rows(here / "a") != rows(here / "c")
    assert weights(here / "a") != weights(here / "c")


DRAWS = """
import random

import numpy as np
import torch


def draws(responses):
    return [random.random() + np.random.rand() + torch.rand(()).item() for _ in responses]
"""


def test_one_seed_is_one_for_rewards_that_draw_numbers(here):
    (here / "draws.py").write_text(DRAWS)
    for name in "ab":
        assert train(f"--fsdp --max_steps 2 --save_path {name} --reward_fn draws.py:draws --quiet").code == 0
    assert_same_run(here / "a", here / "b")


@pytest.mark.parametrize(("strategy", "how"), INTERRUPTED)
def test_interrupted_and_resumed_is_uninterrupted(here, strategy, how, record_property):
    """A process is killed (or told to stop) at some step; this process goes on and ends with the same bits."""
    at = random.randrange(3, 9)  # at a random step, on purpose
    record_property("interrupted_after", at)
    process = start(f"{strategy} {LONG} --save_path cut", here)
    wait_for_steps(process, here / "cut", at)
    process.send_signal(how)
    assert train(f"{strategy} {LONG} --save_path whole").code == 0  # beside the dying process: it takes its time
    out, err = process.communicate(timeout=60)
    if how is signal.SIGTERM:
        assert process.returncode == 0, err
        stopped = re.search(r"stopped by SIGTERM after step (\d+); go on with --load_checkpoint", out)
        assert stopped and at <= int(stopped[1]) < 12
        expected = int(stopped[1])
        assert read_json(here / "cut/summary.json")["steps"] == expected
    else:
        assert process.returncode == -how
        expected = None
    assert not (here / "cut/model.safetensors").exists()

    resumed = train(f"{strategy} {LONG} --save_path cut --load_checkpoint")
    assert resumed.code == 0
    said = re.search(r"resumed from step (\d+) \((.+)\)", resumed.out)
    assert said and said[2] == f"cut/checkpoints/step_{int(said[1]):06d}"
    step = int(said[1])
    assert step == expected if expected is not None else (step % 2 == 0 and 2 <= step <= 12)
    assert_same_run(here / "cut", here / "whole")


def test_half_written_files_are_not_believed(here):
    """What a kill can leave: an unfinished checkpoint, one that `latest` names and is gone, half a line of metrics."""
    flags = "--fsdp --save_steps 2 --eval_steps 5 --train_batch_size 8 --quiet --max_steps 6"
    assert train(f"{flags} --save_path whole").code == 0
    assert train(f"{flags} --save_path again").code == 0
    (here / "again/checkpoints/.step_000008.tmp/policy").mkdir(parents=True)
    (here / "again/checkpoints/step_000006").rename(here / "again/checkpoints/.step_000006.tmp")
    with (here / "again/logs/metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "reward/me')
    resumed = train(f"{flags} --save_path again --load_checkpoint")
    assert resumed.code == 0 and "resumed from step 4 (again/checkpoints/step_000004)" in resumed.out
    assert_same_run(here / "again", here / "whole")


def test_nothing_to_resume_starts_fresh_and_says_so(here):
    fresh = train("--fsdp --save_path new --load_checkpoint --max_steps 2 --quiet")
    assert fresh.code == 0
    assert "no checkpoint in new/checkpoints: starting fresh" in fresh.out
    assert train("--fsdp --save_path plain --max_steps 2 --quiet").code == 0
    assert rows(here / "new") == rows(here / "plain")
    assert weights(here / "new") == weights(here / "plain")


def test_a_resumed_run_names_what_has_changed(here):
    assert train("--fsdp --save_path run --max_steps 2 --save_steps 1 --reward_fn shaped.py:length --quiet").code == 0
    (here / "shaped.py").write_text((here / "shaped.py").read_text() + "\n# edited\n")
    flags = "--max_steps 3 --save_steps 1 --reward_fn shaped.py:length --quiet --top_p 0.8 --load_checkpoint"
    flags += " --clip_range 0.1 --packing_samples --micro_rollout_batch_size 2"
    resumed = train(f"--fsdp --save_path run {flags}")
    assert resumed.code == 0
    assert "warning: changed since that checkpoint: --top_p was 0.9, is 0.8" in resumed.out
    assert "warning: changed since that checkpoint: hash of shaped.py was" in resumed.out
    alone = "notice: changed since that checkpoint, which only changes rounding: --micro_rollout_batch_size was "
    assert alone in resumed.out and "; --packing_samples was false, is true\n" in resumed.out
    assert "--clip_range was" not in resumed.out and "training was" not in resumed.out
    assert "--load_checkpoint was" not in resumed.out
    assert [row["step"] for row in rows(here / "run")] == [1, 2, 3]


def test_the_tiny_recipe_learns(here):
    """The sampled reward of examples/tiny_addition.sh, its own arguments, rises clearly; greedy would be jumpy."""
    text = (ROOT / "examples/tiny_addition.sh").read_text()
    command = re.search(r"python train\.py \\\n(.*?)\"\$@\"", text, re.DOTALL)[1].replace("\\\n", " ")
    for name, place in {"$out/start/model": "tiny", "$out/start/train.jsonl": "add.jsonl"}.items():
        command = command.replace(f'"{name}"', place)
    command = command.replace('"$out/start/eval.jsonl"', "eval.jsonl").replace('"$out/run"', "run")
    assert "$" not in command
    ended = call([*command.split(), "--max_steps", "40", "--plot_every", "0", "--quiet"])
    assert ended.code == 0
    reward = [row["reward/mean"] for row in rows(here / "run")]
    # The mean of 5 x 512 samples has a standard error of 0.01.
    assert fmean(reward[-5:]) > fmean(reward[:5]) + 0.1
    summary = read_json(here / "run/summary.json")
    assert summary["reward_first"] == reward[0] and summary["reward_last"] == reward[-1]


@in_float32
def test_many_optimizer_steps_per_rollout(here, strategy):
    """4 x TBS samples per rollout, two epochs: eight optimizer steps, ratios that are clipped, a KL that is paid."""
    flags = "--rollout_batch_size 8 --train_batch_size 8 --max_epochs 2 --init_kl_coef 0.01 --use_kl_loss"
    ended = train(f"{strategy} {flags} --save_path run --max_steps 3 --reward_fn shaped.py:length --quiet")
    assert ended.code == 0
    assert "each rollout of 8 x 4 = 32 samples is trained on in 4 optimizer steps" in ended.out
    for row in all_rows(here / "run"):
        assert row["update/optimizer_steps"] == 8
        assert row["policy/clip_frac"] > 0 and row["kl/ref"] > 0 and row["loss/kl"] > 0
        assert row["mismatch/gap_max"] < 1e-4  # the old log-probabilities are those that the engine sampled with


def test_a_train_batch_of_two_rollouts(here):
    """TBS = 2 x RBS x N: eight prompts a step, sent to the engine four at a time; still exactly on policy."""
    ended = train("--fsdp --train_batch_size 32 --save_path run --max_steps 2 --reward_fn shaped.py:length --quiet")
    assert ended.code == 0
    prompts = len((here / "add.jsonl").read_text().splitlines())
    for number, row in enumerate(all_rows(here / "run"), start=1):
        assert row["update/optimizer_steps"] == 1 and row["policy/clip_frac"] == 0
        assert row["perf/decode_batches"] == 2
        assert row["episode"] == pytest.approx(8 * number / prompts)


def test_an_episode_is_one_pass_over_the_prompts(here):
    """Without --max_steps: ceil(prompts / RBS) steps, and a checkpoint when the pass is done."""
    lines = (here / "add.jsonl").read_text().splitlines()[:10]
    (here / "ten.jsonl").write_text("\n".join(lines) + "\n")
    assert train("--fsdp --prompt_data ten.jsonl --num_episodes 2 --save_path run --quiet").code == 0
    assert [row["step"] for row in rows(here / "run")] == [1, 2, 3, 4, 5]
    assert sorted(p.name for p in (here / "run/checkpoints").glob("step_*")) == ["step_000003", "step_000005"]


def test_an_episode_of_dynamic_sampling_is_one_pass_over_the_prompts_drawn(here):
    """Of ten prompts those at every third place vary: two passes are 20 draws in batches of 4, where ten steps of two
    kept prompts were planned; a run that was killed in between and one that is done go on alike."""
    lines = (here / "add.jsonl").read_text().splitlines()[:10]
    (here / "ten.jsonl").write_text("\n".join(lines) + "\n")
    (here / "third.py").write_text(
        "def third(rollouts):\n    return [float(i % 4 if r.group % 3 == 0 else 1) for i, r in enumerate(rollouts)]\n"
    )
    flags = (
        "--fsdp --prompt_data ten.jsonl --dynamic_sampling --reward_fn third.py:third --save_steps 1 --max_ckpt_num 9"
    )
    flags += " --rollout_batch_size 2 --train_batch_size 8 --num_episodes 2 --plot_every 0"
    ended = train(f"{flags} --eval_data eval.jsonl --save_path run")
    assert ended.code == 0 and "at most 10 steps of 2 prompts" in ended.out
    assert "step 3/10 |" in ended.out and "step 4/4 |" in ended.out
    found = rows(here / "run")
    assert found[-1]["episode"] == 2.0 and found[-2]["episode"] < 2.0 and len(found) == 4
    assert sum(row["rollout/batches"] for row in found) == 10 and found[-1]["rollout/varied_groups_frac"] <= 0.5
    assert "eval/accuracy" in found[-1] and "after" in read_json(here / "run/summary.json")["eval"]
    shutil.copytree(here / "run", here / "again")
    for step in (3, 4):
        shutil.rmtree(here / f"again/checkpoints/step_00000{step}")
    for resumed in (2, 4):
        ended = train(f"{flags} --eval_data eval.jsonl --save_path again --load_checkpoint")
        assert ended.code == 0 and f"resumed from step {resumed} " in ended.out
        assert rows(here / "again") == found and weights(here / "again") == weights(here / "run")


def test_dry_run_writes_nothing(here):
    before = files(here)
    ended = train("--fsdp --save_path run --dry_run --max_steps 2 --quiet")
    assert ended.code == 0 and not ended.err
    assert "2 steps of 4 prompts x 4 samples" in ended.out and "FSDP2" in ended.out
    bias = "trained on unfiltered log-probabilities"
    assert f"sampled with --top_p 0.9, {bias}: that bias stays" in ended.out
    assert bias not in train("--fsdp --save_path run --dry_run --max_steps 2 --top_p 1").out
    stays = "the drift is exactly 0, and its coefficient stays as it is"
    adapts = train("--fsdp --save_path run --dry_run --init_kl_coef 0.01 --kl_target 0.1 --kl_horizon 8").out
    assert "the KL coefficient adapts to 16 samples a step as to --kl_horizon 8" in adapts.splitlines()
    by_cpgd = "--fsdp --save_path run --dry_run --advantage_estimator cpgd"
    assert [stays in train(f"{by_cpgd} --max_epochs {n}").out for n in (1, 2)] == [True, False]
    assert files(here) == before and not (here / "run").exists()


def test_print_args(here):
    (here / "run.yaml").write_text("seed: 5\nsampling:\n  top_p: 0.5\n")
    text = train("--save_path run --config run.yaml --seed 7 --print_args")
    assert text.code == 0
    assert re.search(r"^ +seed +7 +cli \(hides run\.yaml:1 = 5\)$", text.out, re.MULTILINE)
    assert re.search(r"^ +top_p +0\.5 +run\.yaml:3$", text.out, re.MULTILINE)
    shown = json.loads(train("--save_path run --config run.yaml --print_args json").out)
    assert shown["top_p"] == {"value": 0.5, "source": "run.yaml:3"}
    assert shown["max_new_tokens"] == {"value": 8, "source": "follows --max_len and --prompt_max_len"}
    assert not (here / "run").exists()


def test_print_args_says_what_a_run_would_say_of_them(here):
    """At the end, where it is seen; beside JSON and not in it. What would be refused is no reason to show nothing."""
    idle = "--clip_range 0.1 cannot matter: there is one optimizer step per rollout step, so the ratio is exactly 1"
    flags = "--save_path run --clip_range 0.1 --print_args"
    for form in ("text", "changed"):
        lines = train(f"{flags} {form}").out.splitlines()
        assert f"notice: {idle}" in lines[lines.index("Checkpoint") :]
    shown = train(f"{flags} json")
    assert json.loads(shown.out)["clip_range"]["value"] == 0.1 and f"notice: {idle}" in shown.err.splitlines()
    fault = "a run would be refused: --fp16 and --bf16 exclude each other; use --bf16 alone, or --fp16 --no-bf16"
    lines = train(f"{flags} --fp16 --bf16").out.splitlines()
    assert fault in lines and f"notice: {idle}" in lines
    strict = train(f"{flags} --strict_args")
    assert strict.code == 0 and f"a run would be refused: {idle} (refused under --strict_args" in strict.out


def test_help(here):
    ended = call(["--help"])
    assert ended.code == 0
    for name in ("--pretrain", "--advantage_estimator", "--no-quiet", "--zero_stage"):
        assert name in ended.out


def test_the_exported_model_says_what_the_trainer_evaluated(here):
    """Opened the ordinary way, it gives the evaluation's own responses, token for token."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    flags = "--fsdp --save_path run --max_steps 3 --reward_fn shaped.py:spy --quiet"
    assert train(flags).code == 0
    last = json.loads((here / "seen.jsonl").read_text().splitlines()[-1])
    model, tokenizer = AutoModelForCausalLM.from_pretrained("run"), AutoTokenizer.from_pretrained("run")
    tokens = []
    for prompt in last["prompts"]:
        inputs = tokenizer(prompt, return_tensors="pt")
        output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        tokens.append(output[0, inputs["input_ids"].shape[1] :].tolist())
    assert tokens == last["tokens"]
    assert [tokenizer.decode(ids, skip_special_tokens=True) for ids in tokens] == last["responses"]
    assert len(tokens) == len((here / "eval.jsonl").read_text().splitlines())
    original = AutoModelForCausalLM.from_pretrained("tiny")
    assert any((a != b).any() for a, b in zip(model.parameters(), original.parameters(), strict=True))


def test_what_a_run_leaves_behind(here):
    """Files, evaluation when due, summary.json and run.json, with the three newest checkpoints and their models."""
    flags = "--max_steps 5 --save_steps 1 --save_hf_ckpt --max_ckpt_num 2 --eval_steps 2 --plot_every 2"
    (here / "run.yaml").write_text("seed: 5\n")
    ended = train(f"{flags} --save_path run --use_tensorboard run/tb --config run.yaml --reward_fn shaped.py:length")
    assert ended.code == 0
    run = here / "run"
    expected = {"config.json", "generation_config.json", "model.safetensors", "summary.json", "tokenizer.json"}
    assert expected <= files(run)
    assert not [name for name in files(run) if ".tmp" in name]
    assert {"logs/plots/curves.png", "logs/plots/length_000002.png", "logs/plots/length_000004.png"} <= files(run)
    assert any(name.startswith("tb/events") for name in files(run))
    assert sorted(p.name for p in (run / "checkpoints").glob("step_*")) == ["step_000004", "step_000005"]
    assert (run / "checkpoints/latest").read_text() == "step_000005\n"
    assert (run / "checkpoints/step_000005/hf/model.safetensors").read_bytes() == weights(run)
    evaluated = [row["step"] for row in rows(run) if "eval/accuracy" in row]
    assert evaluated == [2, 4, 5]

    summary = read_json(run / "summary.json")
    assert summary["steps"] == 5 and summary["reward_first"] == rows(run)[0]["reward/mean"]
    assert set(summary["eval"]) == {"before", "after"}
    for result in summary["eval"].values():
        assert 0 <= result["ci_low"] <= result["accuracy"] <= result["ci_high"] <= 1
        assert result["n"] == len((here / "eval.jsonl").read_text().splitlines())
    assert summary["eval"]["after"]["accuracy"] == rows(run)[-1]["eval/accuracy"]


def test_run_json(here):
    from transformers import PreTrainedTokenizerFast

    (here / "run.yaml").write_text("seed: 5\n")
    assert train("--save_path run --max_steps 1 --config run.yaml --reward_fn shaped.py:length --quiet").code == 0
    record = read_json(here / "run/logs/run.json")
    assert record["arguments"]["seed"] == {"value": 5, "source": "run.yaml:1"}
    assert record["arguments"]["top_p"] == {"value": 0.9, "source": "default"}
    assert {"run.yaml", "shaped.py", "add.jsonl"} <= set(record["hashes"])
    assert {"torch", "transformers", "deepspeed"} <= set(record["packages"])
    assert record["hardware"]["cores"] > 0 and "OMP_WAIT_POLICY" in record["environment"]
    runtime = record["runtime"]
    assert runtime["strategy"] == "deepspeed ZeRO-2 (on one process plain torch)" and runtime["device"] == "cpu"
    assert runtime["precision"].startswith("fp32") and runtime["engine"].startswith("local")
    assert runtime["attn_implementation"] == "sdpa"
    assert runtime["tokenizer"] == PreTrainedTokenizerFast.__name__


def test_live_lines(here):
    """One line a step with phase numbers, reward, length, speed and the time left; --quiet leaves them out."""
    ended = train("--fsdp --save_path run --max_steps 2")
    line = (
        r"^step 2/2 \| reward [\d.]+ \| held out [\d.]+ \| length [\d.]+ \| \d+ tokens/s \| [\d.]+ s/step \| 0:00 left$"
    )
    assert ended.code == 0 and re.search(line, ended.out, re.MULTILINE)
    assert "before training: " in ended.out and "finished 2 steps; model in run" in ended.out
    quiet = train("--fsdp --save_path quiet --max_steps 2 --quiet")
    assert "step " not in quiet.out
