"""`--ckpt_path` names one checkpoint: a run goes back to its own, and another branches off there."""

from __future__ import annotations

import shutil

import pytest
from runs import files, train, weights
from runs import rows as all_rows

FLAGS = "--fsdp --save_steps 1 --max_ckpt_num 9 --reward_fn shaped.py:length --lr_scheduler constant --quiet"
STEP_2 = "--ckpt_path run/checkpoints/step_000002 --load_checkpoint"


@pytest.fixture
def run(here):
    assert train(f"{FLAGS} --save_path run --max_steps 4").code == 0
    return here / "run"


def rows(folder):
    """Without what the last step of a run has more: it is evaluated."""
    return [{name: value for name, value in row.items() if "eval/" not in name} for row in all_rows(folder)]


def checkpoints(folder):
    return sorted(path.name for path in folder.glob("checkpoints/step_*"))


def bytes_of(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_a_branch_ends_as_the_run_did_and_leaves_that_alone(here, run):
    """Killed in between, and called again, it goes on with its own checkpoints."""
    before, branch = bytes_of(run), here / "branch"
    ended = train(f"{FLAGS} {STEP_2} --save_path branch --max_steps 3")
    assert ended.code == 0 and "resumed from step 2 (run/checkpoints/step_000002)" in ended.out
    assert "_path was" not in ended.out  # that it is elsewhere is what was asked for
    assert checkpoints(branch) == ["step_000003"]
    ended = train(f"{FLAGS} {STEP_2} --save_path branch --max_steps 4")
    assert ended.code == 0 and "resumed from step 3 (branch/checkpoints/step_000003)" in ended.out
    said = "--ckpt_path run/checkpoints/step_000002: the run has gone on from there already"
    assert said in ended.out.splitlines()
    assert checkpoints(branch) == ["step_000003", "step_000004"]
    assert rows(branch) == rows(run)[2:] and weights(branch) == weights(run)
    assert bytes_of(run) == before
    ended = train(f"{FLAGS} --save_path branch --max_steps 5 --load_checkpoint")
    assert ended.code == 0 and "resumed from step 4 (branch/checkpoints/step_000004)" in ended.out


def test_a_run_goes_back_to_its_own_once_also_where_it_is_moved(here, run):
    whole = rows(run), weights(run)
    back = f"{FLAGS} {STEP_2} --save_path run"
    ended = train(f"{back} --max_steps 3")
    assert ended.code == 0 and "resumed from step 2 (run/checkpoints/step_000002)" in ended.out
    assert checkpoints(run) == ["step_000001", "step_000002", "step_000003"] and len(rows(run)) == 3
    shutil.rmtree(run / "checkpoints/step_000002")  # as --max_ckpt_num may
    moved = run.rename(here / "moved")
    ended = train(f"{back.replace('run', 'moved')} --max_steps 4")
    assert ended.code == 0 and "resumed from step 3 (moved/checkpoints/step_000003)" in ended.out
    assert (rows(moved), weights(moved)) == whole


def test_a_run_whose_checkpoints_lie_elsewhere_goes_back_too(here):
    flags = f"{FLAGS} --save_path run --log_dir logs"
    assert train(f"{flags} --ckpt_path kept --max_steps 3").code == 0
    ended = train(f"{flags} --ckpt_path kept/step_000001 --load_checkpoint --max_steps 2")
    assert ended.code == 0 and "resumed from step 1 (kept/step_000001)" in ended.out
    assert sorted(path.name for path in here.glob("kept/step_*")) == ["step_000001", "step_000002"]
    ended = train(f"{flags} --ckpt_path kept --load_checkpoint --max_steps 3")
    assert ended.code == 0 and "resumed from step 2 (kept/step_000002)" in ended.out


def test_what_cannot_be_begun_from_is_refused(here, run):
    assert train(f"{FLAGS} --save_path other --max_steps 1").code == 0
    before = files(here)
    flags = {
        "--ckpt_path run/checkpoints/step_000002": "names one checkpoint; add --load_checkpoint to go on from it, "
        "or name the folder of checkpoints, run/checkpoints",
        "--ckpt_path run/checkpoints/step_000009 --load_checkpoint": "there is no such checkpoint, but step_000004, "
        "step_000003, step_000002, step_000001",
        f"{STEP_2} --save_path other": "--save_path other holds a run that did not begin there; choose another "
        "--save_path, or go on with that run without --ckpt_path",
    }
    for words, text in flags.items():
        save = "" if "--save_path" in words else "--save_path new"
        ended = train(f"{FLAGS} --max_steps 2 {save} {words}")
        assert ended.code == 2 and len(ended.problems) == 1 and text in ended.problems[0], ended
    state = run / "checkpoints/step_000002/random_0.json"
    state.write_bytes(state.read_bytes()[:-1])
    ended = train(f"{FLAGS} --max_steps 2 --save_path new {STEP_2}")
    what = "no checkpoint that goes on from --ckpt_path run/checkpoints/step_000002 can be loaded: step_000002 ("
    assert ended.code == 2 and len(ended.problems) == 1 and what in ended.problems[0], ended
    assert files(here) == before
