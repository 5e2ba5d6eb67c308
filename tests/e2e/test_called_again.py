"""One command, called again and again: what is done already is said, and nothing is done twice or touched."""

from __future__ import annotations

import json

from runs import call, rows, train, words

FLAGS = "--fsdp --reward_fn shaped.py:length --lr_scheduler constant --quiet"


def contents(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_checkpoint_beyond_the_end(here):
    """No step is left, so none is said to be done again, and no changed flag matters; the model is written anew."""
    flags = f"{FLAGS} --save_path run --save_steps 2 --save_interval 0"
    assert train(f"{flags} --max_steps 3").code == 0
    for end, where in (("--max_steps 1", "beyond"), ("--max_steps 2", "the last of")):
        shorter = train(f"{flags} {end} --top_p 0.5 --no-quiet --load_checkpoint")
        assert shorter.code == 0
        lines = shorter.out.splitlines()
        assert f"notice: the checkpoint is at step 2, {where} {end}: nothing is left to do" in lines
        assert "nothing was trained: 2 steps were done already; model in run" in lines
        assert "finished" not in shorter.out
        assert "done again" not in shorter.out and "changed since" not in shorter.out
        assert [row["step"] for row in rows(here / "run")] == [1, 2]


def test_steps_that_are_done_again_are_those_that_are_done(here):
    flags = f"{FLAGS} --save_path run --save_steps 1 --save_interval 0 --max_ckpt_num 9"
    assert train(f"{flags} --max_steps 4").code == 0
    for step in (3, 4):
        (here / f"run/checkpoints/step_{step:06d}/state.json").unlink()
    again = train(f"{flags} --max_steps 3 --load_checkpoint")
    assert again.code == 0 and "nothing was trained" not in again.out
    assert "warning: steps 3 to 3 were done already and are done again" in again.out
    assert "nothing is left" not in again.out


def test_a_run_that_is_finished_and_kept_no_checkpoint(here):
    """Only this very run: by steps, by passes, and not with other arguments, other data or without its model."""
    for name, end in (
        ("steps", "--max_steps 2"),
        ("passes", "--num_episodes 1 --max_samples 6 --rollout_batch_size 4"),
    ):
        flags = f"{FLAGS} --save_path {name} --save_interval 0 {end}"
        assert train(flags).code == 0
        before = contents(here / name)
        again = train(f"{flags} --load_checkpoint")
        assert (again.code, again.out.splitlines()[-1]) == (0, f"finished already: 2 steps; model in {name}"), again
        assert contents(here / name) == before
    none = "and there is no checkpoint in passes/checkpoints to go on from"
    for change in ("--seed 7", "--num_episodes 2", "--max_steps 2"):
        ended = train(f"{flags} {change} --load_checkpoint")
        assert ended.code == 2 and none in ended.err, change
    assert train(flags).code == 2  # without --load_checkpoint a finished run is refused as ever
    for name in ("shaped.py", "passes/model.safetensors", "passes/summary.json"):
        kept = (here / name).read_bytes()
        (here / name).write_bytes(kept + b"\n# edited") if name == "shaped.py" else (here / name).unlink()
        ended = call(words(f"{flags} --load_checkpoint"))
        assert ended.code == 2 and none in ended.err, name
        (here / name).write_bytes(kept)
    assert train(f"{flags} --load_checkpoint").code == 0


def test_a_trained_policy_is_not_taken_for_the_one_before_training(here):
    """--eval_data comes with the second call: then there is nothing to compare the end with."""
    flags = f"{FLAGS} --no-quiet --save_path run --save_steps 1 --save_interval 0"
    argv = words(f"{flags} --max_steps 1")
    place = argv.index("--eval_data")
    assert call([*argv[:place], *argv[place + 2 :]]).code == 0
    again = train(f"{flags} --max_steps 2 --load_checkpoint")
    assert again.code == 0 and "before" not in again.out
    assert json.loads((here / "run" / "summary.json").read_text())["eval"].keys() == {"after"}
