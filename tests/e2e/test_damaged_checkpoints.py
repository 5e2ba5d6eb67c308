"""Checkpoints that are damaged, or another model's: which one is taken in their place, and what is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from failing import STRATEGIES, breaks, each_library
from runs import assert_same_run, files, read_json, train
from safetensors.torch import load_file, save_file

from lightrft.loop import checkpointing
from lightrft.loop.state_file import own_sum


def noted(what, calls):
    """Each call's last argument is kept."""

    def wrapped(*arguments):
        calls.append(arguments[-1])
        return what(*arguments)

    return wrapped


def test_damaged_checkpoints_are_named_and_older_ones_taken(here):
    """As good as a run that was cut at that step."""
    flags = "--fsdp --max_steps 6 --save_steps 1 --max_ckpt_num 9 --reward_fn shaped.py:length --save_trajectories"
    assert train(f"{flags} --save_path whole").code == 0
    shutil.copytree("whole", "run")
    folder = here / "run/checkpoints"
    (folder / "step_000006/state.json").unlink()
    cut = folder / "step_000005/policy/rank_00000.safetensors"
    cut.write_bytes(cut.read_bytes()[:-100])
    wrong = folder / "step_000004/state.json"
    content = json.dumps({**read_json(wrong), "prompts": {"next": "many", "queue": []}}).encode()
    wrong.write_bytes(content)
    wrong.with_name("state.sha256").write_text(own_sum(content))
    shutil.rmtree(folder / "step_000003")
    (folder / "step_000003").write_text("")
    resumed = train(f"{flags} --save_path run --load_checkpoint")
    assert resumed.code == 0 and not resumed.problems
    told = [line for line in resumed.out.splitlines() if "cannot be loaded" in line]
    for line, number, reason in zip(
        told,
        (6, 5, 4, 3),
        ("state.json is missing", "policy/rank_00000.safetensors has ", "ValueError: invalid literal", "it is a file"),
        strict=True,
    ):
        assert line.startswith(f"warning: step_00000{number} ({reason}"), line
        assert line.endswith("cannot be loaded, and goes when the next checkpoint is whole")
    assert "resumed from step 2 (run/checkpoints/step_000002)" in resumed.out
    assert_same_run(here / "run", here / "whole")
    for step in range(1, 7):  # also the version of the policy that each sample is said to come from
        name = f"logs/trajectories/step_{step:06d}.jsonl"
        assert (here / "run" / name).read_bytes() == (here / "whole" / name).read_bytes()
    assert files(folder) == files(here / "whole/checkpoints")


@each_library
def test_one_that_breaks_while_it_is_loaded_leaves_no_trace(here, strategy, monkeypatch):
    """Its weights are in the model when its random numbers turn out to be of no use; then the one before is loaded."""
    flags = f"{strategy} --max_steps 3 --save_steps 1 --reward_fn shaped.py:length --quiet"
    assert train(f"{flags} --save_path whole").code == 0
    shutil.copytree("whole", "run")
    set_random = checkpointing.set_random_state
    monkeypatch.setattr(checkpointing, "set_random_state", breaks(set_random, 1, ValueError("no generator's state")))
    resumed = train(f"{flags} --save_path run --load_checkpoint")
    assert resumed.code == 0 and "warning: step_000003 (ValueError: no generator's state)" in resumed.out
    assert "resumed from step 2" in resumed.out
    assert_same_run(here / "run", here / "whole")


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_flipped_bit_in_any_file_is_found_before_anything_is_loaded(here, strategy, monkeypatch):
    flags = f"{strategy} --max_steps 2 --save_steps 1 --reward_fn shaped.py:length --quiet"
    assert train(f"{flags} --save_path whole").code == 0
    kind = STRATEGIES[strategy]
    newest = here / "run/checkpoints/step_000002"
    for name in sorted(files(here / "whole/checkpoints/step_000002")):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("whole", "run")
        content = bytearray((newest / name).read_bytes())
        content[len(content) // 3] ^= 4
        (newest / name).write_bytes(content)
        with monkeypatch.context() as patch:
            patch.setattr(kind, "load_state", noted(kind.load_state, loaded := []))
            resumed = train(f"{flags} --save_path run --load_checkpoint")
        assert resumed.code == 0 and "resumed from step 1 (" in resumed.out, name
        told = [line for line in resumed.out.splitlines() if "cannot be loaded" in line]
        assert len(told) == 1 and "is not as it was written" in told[0], name
        assert [reader.folder.parent.name for reader in loaded] == ["step_000001"], name
    assert_same_run(here / "run", here / "whole")


@each_library
def test_checkpoints_of_which_none_is_whole_and_of_another_model(here, strategy):
    flags = f"{strategy} --max_steps 2 --save_steps 1 --save_path run --quiet"
    assert train(flags).code == 0
    shutil.copytree("tiny", "other")
    config = json.loads(Path("other/config.json").read_text())
    Path("other/config.json").write_text(json.dumps({**config, "num_hidden_layers": 1, "layer_types": None}))
    kept = {name: value for name, value in load_file("tiny/model.safetensors").items() if ".layers.1." not in name}
    save_file(kept, "other/model.safetensors", {"format": "pt"})
    before = files(here)
    other = train(f"{flags} --pretrain other --load_checkpoint")
    assert other.code == 2 and len(other.problems) == 1
    assert "--pretrain: the checkpoint run/checkpoints/step_000002 is of another model (model.layers." in other.err
    assert "go on with the --pretrain tiny that it was made with" in other.err
    for step in (1, 2):
        largest = max((here / f"run/checkpoints/step_00000{step}/policy").rglob("*"), key=lambda p: p.stat().st_size)
        largest.write_bytes(b"\0" * largest.stat().st_size)  # as long as it was
    broken = train(f"{flags} --load_checkpoint")
    assert broken.code == 2 and len(broken.problems) == 1, broken
    assert "--load_checkpoint: no checkpoint in run/checkpoints can be loaded: step_000002 (" in broken.err
    assert "Traceback" not in broken.err + broken.out + other.err + other.out
    assert files(here) == before
