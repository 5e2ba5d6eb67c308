"""Reading everything that a run reads, before anything is written."""

from __future__ import annotations

from pathlib import Path

from lightrft.args import parse
from lightrft.preflight import check_inputs


def flags(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    batch = "--reward_fn last_number --rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4"
    data = ["--pretrain", str(folder / "model"), "--prompt_data", str(folder / "train.jsonl")]
    return [*data, *batch.split(), "--save_path", str(tmp_path / "run"), *more]


def test_without_eval_data_nothing_is_held_out(tiny_folder, tmp_path):
    inputs = check_inputs(parse(flags(tiny_folder, tmp_path)))
    assert inputs.eval_prompts == []
    assert len(inputs.prompts) == len((tiny_folder / "train.jsonl").read_text().splitlines())
    assert not (tmp_path / "run").exists()


def test_held_out_prompts_are_cut_to_max_eval_samples(tiny_folder, tmp_path):
    more = ("--eval_data", str(tiny_folder / "eval.jsonl"), "--max_eval_samples", "3")
    inputs = check_inputs(parse(flags(tiny_folder, tmp_path, *more)))
    assert len(inputs.eval_prompts) == 3
    assert all(prompt.token_ids for prompt in inputs.eval_prompts)
