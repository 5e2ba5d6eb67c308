"""docs/metrics.md explains every key that a run writes, and no key that none writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from runs import ROOT, all_rows, read_json, train
from vision_models import save_questions, save_tiny

TRACKED = "--fsdp --max_steps 4 --eval_steps 2 --save_trajectories --reward_fn shaped.py:nan_for_some --quiet"
# What a key depends on: KL in the loss, rows without an advantage, several optimizer steps per rollout, a critic, a
# drift, one ratio per row, shaped rewards, an engine with weights of its own, prompts that are given up, further terms,
# images.
RUNS = {
    "kl": "--init_kl_coef 0.01 --use_kl_loss",
    "idle": "--init_kl_coef 0 --reward_fn last_number",
    "several": "--train_batch_size 8 --high_entropy_token_ratio 0.3",
    "critic": "--advantage_estimator gae",
    "drift": "--advantage_estimator cpgd --train_batch_size 8",
    "rows": "--advantage_estimator gspo --train_batch_size 8",
    "shaped": "--overlong_buffer --overlong_buffer_len 4 --reward_running_norm --reward_clip 1 --advantage_clip 1",
    "apart": "--engine_dtype bf16",
    "stragglers": "--oversample_ratio 1.5",
    "images": "--pretrain tiny_vision --prompt_data seen.jsonl --prompt_max_len 64 --max_len 72 --on_bad_row skip",
    "terms": "--dynamic_sampling --entropy_coef 0.01 --dual_clip 3 --train_batch_size 8 --reward_fn shaped.py:length",
}


@pytest.fixture
def written(here: Path) -> list[Path]:
    save_tiny("qwen2_vl", here / "tiny_vision")
    save_questions(here / "add.jsonl", here, 12)
    for name, flags in RUNS.items():
        assert train(f"{TRACKED} --save_path {name} {flags}").code == 0
    return [here / name for name in RUNS]


def documented(title: str) -> set[str]:
    """The code words in the first column of the tables below a heading of level 2."""
    section = (ROOT / "docs/metrics.md").read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    cells = re.findall(r"^\| (`.+?) \|", section, flags=re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_metric_is_explained_and_every_explained_metric_is_written(written):
    keys = {key for run in written for row in all_rows(run) for key in row}
    parts = {"reward/nan_for_some", "reward/last_number", "reward/length"}
    assert parts <= keys
    of_gpus = {"perf/peak_device_memory_gib", "perf/peak_device_reserved_gib", "perf/mfu"}
    on_gpus = set() if torch.cuda.is_available() else of_gpus
    of_others = {"perf/engine_steps", "perf/engine_requests"}  # vLLM's and SGLang's, which are not installed here
    of_others |= {name.replace("perf/", "perf/eval_") for name in of_others}
    assert keys - parts | {"reward/<part>"} | on_gpus | of_others == documented("metrics.jsonl")


def test_the_keys_of_trajectories(written):
    lines = [line for run in written for path in (run / "logs/trajectories").glob("*.jsonl") for line in path.open()]
    assert {key for line in lines for key in json.loads(line)} == documented("Trajectories")


def test_the_keys_of_run_json_and_summary_json(written):
    section = (ROOT / "docs/metrics.md").read_text().split("\n## summary.json\n")[1].split("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section.split("\nKeys:")[1]))
    for run in written:
        assert read_json(run / "logs/run.json").keys() == documented("run.json") - {"value", "source", "hides"}
        summary = read_json(run / "summary.json")
        found = summary.keys() | summary["eval"].keys()
        assert found | {key for result in summary["eval"].values() for key in result} == named
