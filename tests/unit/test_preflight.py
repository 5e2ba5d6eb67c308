"""Reading everything that a run reads, before anything is written."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from lightrft.args import parse
from lightrft.errors import Refused
from lightrft.preflight import check_inputs


def flags(folder: Path, tmp_path: Path, *more: str) -> list[str]:
    batch = "--prompt_max_len 16 --max_len 24 --reward_fn last_number "
    batch += "--rollout_batch_size 2 --n_samples_per_prompt 2 --train_batch_size 4"
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


def test_sequences_longer_than_the_model_has_positions_are_refused(tiny_folder, tmp_path):
    config = json.loads((tiny_folder / "model" / "config.json").read_text())
    limit = config["max_position_embeddings"]
    fits = ("--prompt_max_len", "16", "--max_len", str(limit))
    assert check_inputs(parse(flags(tiny_folder, tmp_path, *fits))).prompts
    with pytest.raises(
        Refused, match=f"--max_new_tokens {limit - 15} = {limit + 1}, but --pretrain .* {limit} positions"
    ):
        check_inputs(parse(flags(tiny_folder, tmp_path, *fits[:3], str(limit + 1))))


def test_a_kernel_that_is_not_installed_is_refused_here_and_planned_for_elsewhere(tiny_folder, tmp_path, monkeypatch):
    here = set()
    monkeypatch.setattr("lightrft.preflight.find_spec", lambda name: name in here or name == "deepspeed" or None)
    flash = flags(tiny_folder, tmp_path, "--attn_implementation", "flash_attention_2", "--dry_run")
    line = (
        "^--attn_implementation flash_attention_2: flash-attn is not installed; install flash-attn, or use --attn_imp"
    )
    with pytest.raises(Refused, match=line):
        check_inputs(parse(flash))
    assert check_inputs(parse([*flash, "--assume_gpus", "1x80GB"])).prompts
    for package in ("flash_attn", "kernels"):
        here.clear()
        here.add(package)
        assert check_inputs(parse(flash)).prompts


def test_prompts_lose_an_end_token_that_only_the_configuration_names(tiny_folder, tmp_path):
    """`eos_token_id` is the digit 2, which the tokenizer appends: most likely both are wrong, and both are said."""
    model = shutil.copytree(tiny_folder / "model", tmp_path / "model")
    own = json.loads((model / "tokenizer.json").read_text())
    two = own["model"]["vocab"]["2"]
    parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "2", "type_id": 0}}]
    tokens = {"2": {"id": "2", "ids": [two], "tokens": ["2"]}}
    own["post_processor"] = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": tokens}
    own["post_processor"]["pair"] = [*parts, {"Sequence": {"id": "B", "type_id": 1}}]
    (model / "tokenizer.json").write_text(json.dumps(own))
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": two}))
    data = rows(tmp_path / "a.jsonl", "1+1=")
    inputs = check_inputs(parse(flags(tiny_folder, tmp_path, "--pretrain", str(model), "--prompt_data", data)))
    assert inputs.first_prompt().endswith("4 tokens, reference '2': '1+1='")
    assert "responses end at the ordinary token '2'" in inputs.notices[0]
    assert "the tokenizer sets the end token '2' behind a prompt: taken off" in inputs.notices[1]


def test_held_out_rows_that_no_reward_can_judge_are_refused(tiny_folder, tmp_path):
    (tmp_path / "bare.jsonl").write_text(json.dumps({"prompt": "1+2="}) + "\n")
    with pytest.raises(Refused, match="--eval_data .*bare.jsonl: --reward_fn last_number needs a reference"):
        check_inputs(parse(flags(tiny_folder, tmp_path, "--eval_data", str(tmp_path / "bare.jsonl"))))


def test_a_folder_that_holds_a_model_is_not_written_over(tiny_folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    with pytest.raises(Refused, match="--save_path .*run already holds a run or a model"):
        check_inputs(parse(flags(tiny_folder, tmp_path)))


def rows(path: Path, *prompts: object) -> str:
    path.write_text("".join(json.dumps({"prompt": prompt, "label": "2"}) + "\n" for prompt in prompts))
    return str(path)


def places(prompts) -> list[str]:
    return [Path(prompt.where).name for prompt in prompts]


def test_bad_rows_of_both_kinds_of_data_are_left_out_and_told(tiny_folder, tmp_path):
    train = rows(tmp_path / "a.jsonl", "1+1=", 5, "1+" * 20, "2+2=")
    held_out = rows(tmp_path / "e.jsonl", [], "1+1=")
    more = ("--prompt_data", train, "--eval_data", held_out)
    with pytest.raises(Refused, match="^--prompt_data .*a.jsonl:2: 'prompt' is of type int"):
        check_inputs(parse(flags(tiny_folder, tmp_path, *more)))
    inputs = check_inputs(parse(flags(tiny_folder, tmp_path, *more, "--on_bad_row", "skip")))
    assert places(inputs.prompts) == ["a.jsonl:1", "a.jsonl:4"]
    assert places(inputs.eval_prompts) == ["e.jsonl:2"]
    assert [line.split(" (first: ")[0] for line in inputs.skipped] == [
        "skipped 2 of 4 rows of --prompt_data",
        "skipped 1 of 2 rows of --eval_data",
    ]


def test_the_first_samples_of_each_source_are_used(tiny_folder, tmp_path):
    """Of six and three, four: 2.67 and 1.33 of them. Held-out prompts are not meant."""
    one, two = rows(tmp_path / "a.jsonl", *["1+1="] * 6), rows(tmp_path / "b.jsonl", *["1+1="] * 3)
    more = ("--prompt_data", one, two, "--eval_data", one, "--max_samples", "4")
    inputs = check_inputs(parse(flags(tiny_folder, tmp_path, *more)))
    assert places(inputs.prompts) == ["a.jsonl:1", "a.jsonl:2", "a.jsonl:3", "b.jsonl:1"]
    assert len(inputs.eval_prompts) == 6


def test_a_source_that_would_never_be_seen_is_refused(tiny_folder, tmp_path):
    one, two = rows(tmp_path / "a.jsonl", *["1+1="] * 6), rows(tmp_path / "b.jsonl", *["1+1="] * 3)
    more = ("--prompt_data", one, two, "--prompt_data_probs", "0.99", "0.01")
    with pytest.raises(Refused, match="--prompt_data_probs 0.99 0.01: .*b.jsonl gets no place among the 9"):
        check_inputs(parse(flags(tiny_folder, tmp_path, *more)))
    with pytest.raises(Refused, match="--max_samples leaves no prompt of .*b.jsonl"):
        check_inputs(parse(flags(tiny_folder, tmp_path, *more, "--max_samples", "4")))


def test_the_first_prompt_is_shown_as_the_model_gets_it(tiny_folder, tmp_path):
    data = rows(tmp_path / "a.jsonl", "1+1=")
    more = ("--prompt_data", data, "--input_template", "{prompt}+")
    inputs = check_inputs(parse(flags(tiny_folder, tmp_path, *more)))
    assert inputs.first_prompt() == f"first prompt {data}:1, 5 tokens, reference '2': '1+1=+'"


def test_held_out_data_that_is_trained_on_is_told(tiny_folder, tmp_path):
    """Links are followed; another file is none of it, nor is another split of a dataset."""
    (tmp_path / "link.jsonl").symlink_to(tiny_folder / "train.jsonl")
    for source, told in ((tmp_path / "link.jsonl", True), (tiny_folder / "eval.jsonl", False)):
        inputs = check_inputs(parse(flags(tiny_folder, tmp_path, "--eval_data", str(source))))
        line = f"--eval_data {source} is trained on as --prompt_data: its accuracy is not held out"
        assert (line in inputs.notices) == told
    (tmp_path / "both").mkdir()
    for split in ("train", "test"):
        (tmp_path / "both" / f"{split}.jsonl").write_text('{"prompt": "1+1=", "label": "2"}\n')
    data = [str(tmp_path / "both"), "--eval_data", str(tmp_path / "both")]
    for split, told in (("train", True), ("test", False)):
        inputs = check_inputs(parse(flags(tiny_folder, tmp_path, "--prompt_data", *data, "--eval_split", split)))
        assert any("not held out" in notice for notice in inputs.notices) == told


def test_a_rank_that_some_layers_cannot_use_is_a_notice(tiny_folder, tmp_path):
    """One head of keys of 32 in each of two layers of 128: k_proj and v_proj are 32 by 128, five others larger."""
    model = shutil.copytree(tiny_folder / "model", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "num_key_value_heads": 1}))
    more = ("--pretrain", str(model), "--lora_rank")
    assert check_inputs(parse(flags(tiny_folder, tmp_path, *more, "32"))).notices == []
    what = "is above the smaller side of 4 of the 14 layers that it adapts, beyond which a rank gains nothing"
    told = f"--lora_rank 33 {what}; all can use up to 32"
    assert check_inputs(parse(flags(tiny_folder, tmp_path, *more, "33"))).notices == [told]
    with pytest.raises(Refused, match=re.escape(f"{told} (refused under --strict_args)")):
        check_inputs(parse(flags(tiny_folder, tmp_path, *more, "33", "--strict_args")))
