"""The program where two processes share every sequence (`--sp_size 2`): the runs of one process."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from on_ranks import run_on
from runs import prepare, rows, train, weights, words

# AdamW divides a gradient by its own size: of one that is all rounding it would make a full step.
BASE = """--quiet --save_interval 0 --train_batch_size 8 --micro_train_batch_size 4 --max_steps 4
 --optimizer sgd --max_norm 0 --actor_learning_rate 0.01 --critic_learning_rate 0.005"""
CASES = {
    "critic": "--fsdp --advantage_estimator gae",
    "zero3": "--zero_stage 3 --high_entropy_token_ratio 0.3 --save_steps 2 --max_ckpt_num 9",
}


def lines() -> list[list[str]]:
    """Both cases, the second of them stopped at its second step and gone on with, shared and not, and a wrong model."""
    two, more = "--max_steps 2 --lr_scheduler constant", "--lr_scheduler constant"
    zero3, go_on = CASES["zero3"], "--load_checkpoint"
    shared = [
        *(f"{flags} {more} --save_path {name}" for name, flags in CASES.items()),
        *(f"{zero3} {two} --save_path {name}" for name in ("halves", "rows")),
        f"{zero3} {more} {go_on} --save_path halves",
        f"{zero3} {more} {go_on} --save_path rows --sp_size 1",
        f"{zero3} --pretrain odd --save_path odd_run",
    ]
    return [words(f"{BASE} --sp_size 2 {flags}") for flags in shared]


@pytest.fixture(scope="module")
def ended(tiny_folder: Path, tmp_path_factory):
    """The folder of the runs on two processes, and how they ended on each."""
    folder = prepare(tmp_path_factory.mktemp("shared"), tiny_folder)
    shutil.copytree(folder / "tiny", folder / "odd")
    config = json.loads((folder / "odd/config.json").read_text())
    (folder / "odd/config.json").write_text(json.dumps({**config, "num_attention_heads": 1, "num_key_value_heads": 1}))
    return folder, run_on(2, lines(), folder)


@pytest.mark.parametrize("name", CASES)
def test_the_metrics_are_those_of_one_process(ended, here: Path, name: str):
    folder, _ = ended
    assert train(f"{BASE} --lr_scheduler constant {CASES[name]} --save_path {name}").code == 0
    several, one = rows(folder / name), rows(here / name)
    assert len(several) == len(one) == 4
    for found, expected in zip(several, one, strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_all_but_the_wrong_model_end_well(ended):
    folder, told = ended
    *good, bad = told
    assert [rank.problems for ranks in good for rank in ranks] == [[]] * 2 * len(good)
    assert all(rank.code == 0 for ranks in good for rank in ranks)
    assert [rank.code for rank in bad] == [2, 2] and not (folder / "odd_run").exists()
    line = "error: --sp_size 2 does not divide the 1 attention heads of --pretrain odd; use --sp_size 1"
    assert [problem for rank in bad for problem in rank.problems] == [line]


def test_a_run_goes_on_to_the_bit_and_with_whole_rows(ended):
    """The same layout gives the same bits; processes with rows of their own the same numbers."""
    folder, _ = ended
    assert weights(folder / "halves") == weights(folder / "zero3")
    whole, halves, alone = (rows(folder / name)[2:] for name in ("zero3", "halves", "rows"))
    assert halves == whole
    assert alone != whole, "the sums are others"
    for found, expected in zip(alone, whole, strict=True):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
