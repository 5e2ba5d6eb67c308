"""A run goes on under another number of ranks, another ZeRO stage or the other strategy as if nothing had changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from on_ranks import run_on
from runs import prepare, rows, samples, train, words
from safetensors.torch import load_file

STEPS, SAVED = 4, 2
FLAGS = f"""--quiet --rollout_batch_size 6 --train_batch_size 24 --micro_train_batch_size 2 --max_steps {STEPS}
 --save_steps {SAVED} --reward_fn shaped.py:length --save_trajectories --num_trajectories_to_save 1000
 --optimizer sgd --max_norm 0 --actor_learning_rate 0.05 --lr_scheduler constant"""
# name -> where it begins, and its layout; first what is saved, then what goes on
ON_ONE = {"one": ("", "--fsdp")}
ON_TWO = {
    "zero3": ("", "--zero_stage 3"),
    "fsdp": ("", "--fsdp"),
    "zero3 to fsdp": ("zero3", "--fsdp"),
    "fsdp to zero3": ("fsdp", "--zero_stage 3"),
    "one to zero2": ("one", "--zero_stage 2"),
}
BACK_ON_ONE = {"zero3 to one": ("zero3", "--fsdp"), "fsdp to zero1 on one": ("fsdp", "--zero_stage 1")}
GOES_ON = [name for name in (*ON_TWO, *BACK_ON_ONE) if " to " in name]


def line(name: str, begins: str, layout: str) -> str:
    start = f"--load_checkpoint --ckpt_path {begins}/checkpoints/step_{SAVED:06d}" if begins else ""
    return f"{FLAGS} {layout} {start} --save_path {folder_of(name)}"


def folder_of(name: str) -> str:
    return name.replace(" ", "_")


@pytest.fixture(scope="module")
def ended(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that were saved, and others that went on from there."""
    folder = prepare(tmp_path_factory.mktemp("layouts"), tiny_folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_all(folder)
    return folder


def run_all(folder: Path) -> None:
    for on_one, on_two in ((ON_ONE, ON_TWO), (BACK_ON_ONE, {})):
        for name, (begins, layout) in on_one.items():
            alone = train(line(name, begins, layout))
            assert alone.code == 0, alone.err
        lines = [words(line(name, begins, layout)) for name, (begins, layout) in on_two.items()]
        for ranks in run_on(2, lines, folder) if lines else ():
            assert [rank.code for rank in ranks] == [0, 0], ranks[0].err


@pytest.mark.parametrize("name", GOES_ON)
def test_what_goes_on_elsewhere_is_the_run_that_went_on(ended: Path, name: str):
    """The same prompts in the same order, the same tokens, metrics and weights; and at once the same gradient."""
    begins, _ = (ON_TWO | BACK_ON_ONE)[name]
    whole, found = ended / begins, ended / folder_of(name)
    after = [sample for sample in samples(whole) if sample["step"] > SAVED]
    keys = ("step", "prompt_id", "group", "response_ids", "reward")
    assert [[s[key] for key in keys] for s in samples(found)] == [[s[key] for key in keys] for s in after]
    expected = rows(whole)[SAVED:]
    norms = [of_run[0]["policy/grad_norm"] for of_run in (expected, rows(found))]
    assert norms[1] == pytest.approx(norms[0], rel=1e-6)
    assert len(rows(found)) == len(expected) == STEPS - SAVED
    for was, now in zip(expected, rows(found), strict=True):
        assert now == pytest.approx(was, rel=1e-5, abs=1e-5)
    then, now = (load_file(path / "model.safetensors") for path in (whole, found))
    assert max(float((now[key] - then[key]).norm() / then[key].norm()) for key in then) < 1e-6
