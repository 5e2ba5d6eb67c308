"""LoRA on two ranks learns, and PEFT opens its adapter to the log-probabilities that the trainer itself logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
import torch
from on_ranks import run_on
from peft import PeftModel
from runs import ROOT, prepare, read_json, rows, samples, words
from transformers import AutoModelForCausalLM, AutoTokenizer

ALL = "--lr_scheduler constant --save_interval 0 --plot_every 0 --init_kl_coef 0 --top_p 1 --quiet --save_path run"
TINY = f"""{ALL} --pretrain tiny --prompt_data add.jsonl --prompt_max_len 8 --max_new_tokens 4 --max_len 12
 --lr_warmup_steps 0 --reward_fn last_number --rollout_batch_size 16 --n_samples_per_prompt 16 --train_batch_size 64
 --micro_train_batch_size 32 --micro_rollout_batch_size 16 --lora_rank 16 --lora_learning_rate 3e-3"""
STEPS, ENDS, RISE = 36, 10, 0.04  # of the tiny model; seen: 0.07 to 0.08; a mean of ten steps varies by 0.01
QUICKSTART = f"{ALL} --config {ROOT}/examples/quickstart.yaml --lora_rank 16 --lora_learning_rate 3e-4 --fsdp"
MODEL = ROOT / "models/SmolLM2-135M-Instruct"


def learn(folder: Path, base: str, flags: str, steps: int, *, seconds: int = 300) -> list[float]:
    """The rewards of `run`, of `steps` steps on two ranks. `next` goes on from there for a step in two parts: for these
    the trainer computes log-probabilities of the policy as it was exported, and says them of each token."""
    run = words(f"{flags} --max_steps {steps} --save_steps {steps}", base)
    checkpoint = f"--ckpt_path run/checkpoints/step_{steps:06d} --load_checkpoint --save_path next"
    said = "--save_trajectories --num_trajectories_to_save 32"
    after = words(
        f"{flags} {checkpoint} --max_steps {steps + 1} {said} --train_batch_size 32 --micro_train_batch_size 16", base
    )
    for ranks in run_on(2, [run, after], folder, seconds=seconds):
        assert [rank.code for rank in ranks] == [0, 0], ranks[0].err
    return [row["reward/mean"] for row in rows(folder / "run")]


def check_in_peft(folder: Path, pretrain: Path, bound: float) -> None:
    """Of each sampled token; and the adapter matters. In float64, so that the trainer's rounding alone is seen."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "run")
    base = AutoModelForCausalLM.from_pretrained(pretrain, dtype=torch.float64)
    model, found = PeftModel.from_pretrained(base, folder / "run").eval(), samples(folder / "next")
    assert len(found) == 32 and all(sample["old_logprobs"] for sample in found)
    assert max(gap(model, tokenizer, sample) for sample in found) < bound
    with model.disable_adapter():
        assert max(gap(model, tokenizer, sample) for sample in found) > 0.1


def gap(model, tokenizer, sample: dict) -> float:
    """The largest of a response's tokens, in nats."""
    prompt, response = ids_of(tokenizer, sample["messages"]), sample["response_ids"]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    found = logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0]
    return float((found - torch.tensor(sample["old_logprobs"])).abs().max())


def ids_of(tokenizer, messages: list[dict]) -> list[int]:
    if tokenizer.chat_template is None:
        return tokenizer(messages[-1]["content"])["input_ids"]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]


def test_the_tiny_model_learns_and_peft_opens_it(tiny_folder: Path, tmp_path: Path):
    folder = prepare(tmp_path, tiny_folder)
    rewards = learn(folder, TINY, "--zero_stage 2", STEPS)
    assert fmean(rewards[-ENDS:]) - fmean(rewards[:ENDS]) > RISE
    check_in_peft(folder, folder / "tiny", bound=1e-5)


@pytest.mark.slow
def test_the_quickstart_learns_and_peft_opens_it(tmp_path: Path):
    """SmolLM2-135M: seen .70 of 137 held-out sums after 20 steps, .37 before; rewards .15 to .68."""
    subprocess.run([sys.executable, ROOT / "examples/smollm2.py", "--out", MODEL], check=True)
    flags = f"--pretrain {MODEL} --eval_steps 20"
    rewards = learn(tmp_path, QUICKSTART, flags, 20, seconds=1200)
    evaluated = read_json(tmp_path / "run/summary.json")["eval"]
    assert fmean(rewards[-5:]) - fmean(rewards[:5]) > 0.3
    assert evaluated["after"]["accuracy"] - evaluated["before"]["accuracy"] > 0.15
    check_in_peft(tmp_path, MODEL, bound=1e-4)
