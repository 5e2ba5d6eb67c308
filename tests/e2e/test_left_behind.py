"""What a run says line by line, and what it leaves behind."""

from __future__ import annotations

import json
import re

from runs import files, read_json, rows, train, weights


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
