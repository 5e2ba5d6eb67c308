"""Turns that fail for good, full disks, damaged checkpoints: one line, and nothing that was learned is lost."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch
from runs import files, read_json, rows, train, weights, words
from safetensors.torch import load_file, save_file

from lightrft.cli import main
from lightrft.loop import checkpointing
from lightrft.loop.state_file import own_sum
from lightrft.strategy.deepspeed import DeepSpeedStrategy
from lightrft.strategy.fsdp2 import FSDP2Strategy
from lightrft.strategy.one_process import OneProcess
from lightrft.update.score import Scorer

STRATEGIES = {"--fsdp": OneProcess, "--fsdp --bf16": FSDP2Strategy, "--zero_stage 2 --bf16": DeepSpeedStrategy}
each_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
each_library = pytest.mark.parametrize("strategy", [flags for flags in STRATEGIES if "--bf16" in flags])
RANDOM = """
import random
from pathlib import Path


def down_after(steps):
    metrics = Path("cut/logs/metrics.jsonl")
    return Path("down").exists() and metrics.is_file() and metrics.read_text().count("\\n") >= steps


def lucky(responses):
    drawn = [len(response) + random.random() for response in responses]
    if down_after(3):
        raise ConnectionError("the reward server is down")
    return drawn


def held_out_fails(responses):
    drawn = [len(response) + random.random() for response in responses]
    return [] if len(responses) == 23 and down_after(1) else drawn


def held_out_fails_undrawn(responses):
    return [] if len(responses) == 23 and down_after(1) else [float(sum(map(ord, text))) for text in responses]
"""
FLAGS = "--max_steps 6 --train_batch_size 8 --save_interval 0 --reward_running_norm --quiet"


@pytest.fixture(autouse=True)
def _files(here):
    (here / "lucky.py").write_text(RANDOM)


def failed(flags: str, *expected: str) -> str:
    """Exit code 1 and one line; what was printed."""
    ended = train(flags)
    assert ended.code == 1, ended
    assert "Traceback" not in ended.err + ended.out
    assert len(ended.problems) == 1, ended.err
    for text in expected:
        assert text in ended.problems[0], ended.problems
    return ended.out


def assert_same(left: Path, right: Path) -> None:
    assert rows(left) == rows(right)
    assert weights(left) == weights(right)


@each_library
def test_a_reward_that_fails_for_good_loses_nothing(here, strategy):
    """It drew random numbers before it failed: they are as if the turn had never begun."""
    flags = f"{strategy} {FLAGS} --reward_fn lucky.py:lucky"
    (here / "down").touch()
    out = failed(f"{flags} --save_path cut", "every reward of step 4 is invalid", "the reward server is down")
    kept = "the state after step 3 is kept: cut/checkpoints/step_000003; go on with --load_checkpoint"
    assert kept in out.splitlines()
    assert failed(f"{flags} --save_path cut --load_checkpoint", "step 4 is invalid").splitlines()[-1] == kept
    (here / "down").unlink()
    assert "resumed from step 3" in train(f"{flags} --save_path cut --load_checkpoint").out
    assert train(f"{flags} --save_path whole").code == 0
    assert_same(here / "cut", here / "whole")


def test_an_evaluation_that_fails_for_good_loses_nothing(here):
    """After the second step's learning: the step counts, its line is written, and only its evaluation is missing."""
    flags = f"--fsdp {FLAGS} --reward_fn lucky.py:held_out_fails --eval_steps 2"
    (here / "down").touch()
    out = failed(f"{flags} --save_path cut", "--reward_fn lucky.py:held_out_fails", "0 values")
    assert "the state after step 2 is kept: cut/checkpoints/step_000002; go on with --load_checkpoint" in out
    (here / "down").unlink()
    assert train(f"{flags} --save_path cut --load_checkpoint").code == 0
    assert [row["step"] for row in rows(here / "cut")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows(here / "cut") if "eval/accuracy" in row] == [4, 6]
    assert set(read_json(here / "cut/summary.json")["eval"]) == {"before", "after"}


def test_a_last_evaluation_that_failed_is_made_up_for(here):
    flags = f"--fsdp {FLAGS} --max_steps 2 --reward_fn lucky.py:held_out_fails --save_path cut"
    (here / "down").touch()
    assert "the state after step 2 is kept" in failed(flags, "0 values")
    (here / "down").unlink()
    ended = train(f"{flags} --load_checkpoint")
    assert ended.code == 0 and "resumed from step 2" in ended.out
    assert set(read_json(here / "cut/summary.json")["eval"]) == {"before", "after"}


def test_the_last_evaluation_of_a_run_that_went_on_is_of_its_last_step(here):
    """Not of the end before, where the new one fails: here at its fourth step."""
    flags = f"--fsdp {FLAGS} --reward_fn lucky.py:held_out_fails_undrawn --lr_scheduler constant --save_path"
    assert train(f"{flags} cut --max_steps 2 --save_steps 1").code == 0
    (here / "down").touch()
    failed(f"{flags} cut --max_steps 4 --load_checkpoint", "0 values")
    (here / "down").unlink()
    assert train(f"{flags} cut --max_steps 4 --load_checkpoint").code == 0
    assert train(f"{flags} whole --max_steps 4").code == 0
    assert read_json(here / "cut/summary.json") == read_json(here / "whole/summary.json")


def breaks(what, at, error=ZeroDivisionError("injected")):  # noqa: B008
    """The `at`-th call fails as a bug or a driver would."""
    calls = []

    def broken(*arguments, **more):
        calls.append(1)
        if len(calls) == at:
            raise error
        return what(*arguments, **more)

    return broken


def noted(what, calls):
    """Each call's last argument is kept."""

    def wrapped(*arguments):
        calls.append(arguments[-1])
        return what(*arguments)

    return wrapped


CASES = {  # what breaks, at which call, and what is kept then: two optimizer steps a turn
    "the first turn": (Scorer, "to_batch", 1, None),
    "scoring": (Scorer, "to_batch", 3, 2),
    "the first backward pass of a turn": (OneProcess, "backward", 5, 2),
    "the first optimizer step of a turn": (OneProcess, "step", 5, "lost"),
    "the second optimizer step of a turn": (OneProcess, "step", 6, "lost"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_kept_depends_on_whether_weights_had_changed(here, monkeypatch, case):
    cls, name, at, kept = CASES[case]
    flags = "--fsdp --max_steps 3 --train_batch_size 8 --save_interval 0 --reward_fn shaped.py:length --save_path cut"
    with monkeypatch.context() as patch:
        patch.setattr(cls, name, breaks(getattr(cls, name), at))
        patch.setattr("sys.stdout", said := io.StringIO())
        with pytest.raises(ZeroDivisionError, match="injected"):
            main(argv=words(flags))
    checkpoints = sorted(path.name for path in (here / "cut").glob("checkpoints/*"))
    last = said.getvalue().splitlines()[-1]
    if kept == 2:
        assert checkpoints == ["latest", "step_000002"] and "the state after step 2 is kept" in last
        assert train(f"{flags} --load_checkpoint").code == 0
        assert train(flags.replace("cut", "whole")).code == 0
        assert_same(here / "cut", here / "whole")
    else:
        assert not checkpoints
        assert ("what was learned since the last checkpoint is lost" in last) == (kept == "lost")


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")]
)
def test_too_little_memory_is_one_line_and_loses_nothing(here, monkeypatch, error):
    monkeypatch.setattr(OneProcess, "backward", breaks(OneProcess.backward, 3, error))
    flags = "--fsdp --max_steps 3 --save_interval 0 --reward_fn shaped.py:length --save_path run"
    out = failed(flags, "out of memory: ", str(error) or "MemoryError", "--micro_train_batch_size")
    assert "the state after step 1 is kept: run/checkpoints/step_000001" in out


# Signals


def interrupting(times: int) -> str:
    return f"""
import os
import signal


def ctrl_c(responses):
    if interrupts and len(responses) == 16:
        interrupts.pop()
        for _ in range({times}):
            os.kill(os.getpid(), signal.SIGINT)
    return [len(response) + 0.1 * sum(map(ord, response)) for response in responses]


interrupts = [1]
"""


def test_one_interrupt_saves_and_two_stop_at_once(here):
    flags = "--fsdp --max_steps 3 --save_interval 0 --quiet"
    (here / "once.py").write_text(interrupting(1))
    (here / "twice.py").write_text(interrupting(2))
    ended = train(f"{flags} --save_path once --reward_fn once.py:ctrl_c")
    assert ended.code == 0 and "stopped by SIGINT after step 1; go on with --load_checkpoint" in ended.out
    assert (here / "once/checkpoints/step_000001").is_dir()
    ended = train(f"{flags} --save_path twice --reward_fn twice.py:ctrl_c")
    assert ended.code == 1 and "stopped at once; --load_checkpoint goes on" in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert files(here / "twice") == {"logs/run.json", "logs/metrics.jsonl"}


def test_readers_of_both_streams_who_go_early_end_nothing(here, monkeypatch):
    """As by `2>&1 | head -1`: the first warning of that has nowhere to go either."""
    for name in ("stdout", "stderr"):
        reader, writer = os.pipe()
        os.close(reader)
        monkeypatch.setattr(sys, name, open(writer, "w"))  # noqa: SIM115
    assert main(argv=words("--fsdp --max_steps 2 --save_path run")) == 0
    assert len(rows(here / "run")) == 2 and weights(here / "run")


# Full disks


@each_library
def test_a_disk_that_is_full_during_a_save(here, strategy, full_disk):
    flags = f"{strategy} --max_steps 6 --save_steps 2 --save_interval 0 --save_path run --quiet"
    assert train(f"{flags} --max_steps 2").code == 0
    before = files(here / "run/checkpoints")
    with full_disk(1 << 20):  # of some five million bytes
        said = failed(
            f"{flags} --load_checkpoint",
            "--ckpt_path run/checkpoints: the checkpoint of step 4 could not be written: File too large (about ",
            " MB are needed, ",
            " MB free); run/checkpoints/step_000002 stands; make room and use --load_checkpoint",
        )
    assert "kept" not in said and "lost" not in said
    assert files(here / "run/checkpoints") == before
    assert (here / "run/checkpoints/latest").read_text() == "step_000002\n"
    assert train(f"{flags} --load_checkpoint").code == 0
    assert [row["step"] for row in rows(here / "run")] == [1, 2, 3, 4, 5, 6]


def test_a_disk_that_is_full_at_the_end(here, full_disk):
    """The model does not fit; what has learned is a checkpoint, on another disk, or lost, which is said."""
    flags = "--fsdp --max_steps 2 --save_interval 0 --save_path run --quiet"
    with full_disk(1 << 20):
        said = failed(
            flags, "--save_path run: the trained policy could not be written: File too large (", "there is no"
        )
    assert "warning: the state after step 2 is lost as well: --ckpt_path run/checkpoints: " in said
    assert files(here / "run") == {"logs/run.json", "logs/metrics.jsonl"}
    ended = train(f"{flags} --load_checkpoint --save_steps 1")
    assert ended.code == 0 and "no checkpoint in run/checkpoints: starting fresh" in ended.out
    assert (here / "run/logs/metrics.jsonl.old").is_file()
    assert [row["step"] for row in rows(here / "run")] == [1, 2]


def test_a_disk_that_is_full_from_the_start(here, full_disk):
    with full_disk(100):
        failed(
            "--fsdp --max_steps 1 --save_path run --quiet", "--save_path run", "run.json could not be written", "room"
        )
    assert not files(here / "run")


# Checkpoints that are damaged, or another model's


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
    assert_same(here / "run", here / "whole")
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
    assert_same(here / "run", here / "whole")


@each_strategy
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
    assert_same(here / "run", here / "whole")


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


# What the system refuses elsewhere


def test_an_error_of_the_system_is_one_line_wherever_it_comes_from(here, monkeypatch):
    """A lost mount, say: while the model is built, and in the middle of the second turn."""
    lost = OSError(116, "Stale file handle", "/data/model")
    with monkeypatch.context() as patch:
        patch.setattr("lightrft.build.trainer.load_model", breaks(None, 1, lost))
        failed("--fsdp --max_steps 2 --save_path run", "Stale file handle (/data/model); --load_checkpoint goes on")
    monkeypatch.setattr(Scorer, "to_batch", breaks(Scorer.to_batch, 2, lost))
    out = failed("--fsdp --max_steps 2 --save_interval 0 --save_path run", "Stale file handle (/data/model)")
    assert "the state after step 1 is kept" in out
