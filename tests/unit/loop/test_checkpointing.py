from __future__ import annotations

import errno
import json
import random
import shutil
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lightrft.args.groups.model import ModelArgs
from lightrft.errors import Refused
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.checkpointing import Boundary, Checkpointer, SaveFailed
from lightrft.loop.random_state import random_state
from lightrft.loop.restoring import Restored
from lightrft.loop.state_file import own_sum
from lightrft.models.given import read_given
from lightrft.ranks.base import ONE_RANK
from lightrft.strategy.base import Handle, named_tensors
from lightrft.strategy.state import WEIGHT, ModelState, Piece


def draws():
    return random.random(), np.random.rand(), torch.rand(3).tolist()


@dataclass
class FakeStrategy:
    fail: bool = False

    def state(self, handle):
        if self.fail:
            raise OSError("no space left on device")
        text = torch.tensor(list(handle.module.encode()), dtype=torch.uint8)
        return ModelState([Piece(WEIGHT, "module", (len(text),), 0, text)], {}, {})

    def load_state(self, handle, reader):
        handle.module = bytes(reader.read(WEIGHT, "module", 0, *reader.shapes["module"]).tolist()).decode()

    def use_loaded(self, handle):
        pass

    def full_params(self, handle):
        return named_tensors(handle.model)


FLAGS = {"optimizer": "adamw", "pretrain": "tiny", "critic_pretrain": None}
RECORD = {"arguments": {flag: {"value": value} for flag, value in FLAGS.items()}}
SHAPES = {"a": (2, 3), "b": (4,)}


def model(**other):
    """Tensors by name, as `shapes` finds them."""
    return torch.nn.ParameterDict({name: torch.zeros(size) for name, size in {**SHAPES, **other}.items() if size})


def boundary(step, **state):
    return Boundary(step, {"progress": {"step": step}, "record": RECORD, **state}, random_state())


def maker(path, keep=2, **more):
    policy = Handle("first", model())
    folder = CheckpointFolder(path, keep, 1)
    more = {"with_hf": False, "structure": {"optimizer": "adamw"}, **more}
    return policy, Checkpointer(folder, ONE_RANK, FakeStrategy(), policy, {}, **more)


def restored(made):
    """What the loop got, and the report."""
    got = []
    found = made.restore(lambda state: got.append(state) or ["news"])
    return got[-1]["progress"]["step"] if got else None, found


def test_a_checkpoint_brings_back_policy_state_and_random_numbers(tmp_path):
    policy, made = maker(tmp_path)
    assert restored(made) == (None, None)
    path = made.save(boundary(3, prompts={"next": 12, "queue": [5]}))
    wanted, policy.module = draws(), "second"
    states = []
    found = made.restore(lambda state: states.append(state) or ["news"])
    assert found == Restored(3, path, ["news"], [], []) and policy.module == "first" and draws() == wanted
    assert states[0]["prompts"] == {"next": 12, "queue": [5]} and states[0]["record"] == RECORD
    assert not (path / "hf").exists()


def test_the_random_numbers_are_those_of_the_boundary(tmp_path):
    _, made = maker(tmp_path)
    then, wanted = boundary(1), draws()
    made.save(then)
    draws()
    restored(made)
    assert draws() == wanted


def test_a_checkpoint_that_fails_leaves_the_one_before_and_says_what_is_needed(tmp_path):
    policy, made = maker(tmp_path, keep=1)
    made.save(boundary(1))
    made.strategy.fail = True
    message = (
        r"--ckpt_path .*: the checkpoint of step 2 could not be written: no space.* \(about [\d.,]+ MB are needed, "
    )
    with pytest.raises(
        SaveFailed, match=message + r"[\d.,]+ MB free\); .*step_000001 stands; make room and use --load_checkpoint"
    ):
        made.save(boundary(2))
    assert restored(made)[0] == 1
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["latest", "step_000001"]


def test_what_a_writer_in_c_says_of_a_full_disk_is_not_believed(tmp_path, full_disk, monkeypatch):
    """torch's says `unexpected pos`; the disk itself is asked. A fault that is none of the disk's stays what it is."""
    _, made = maker(tmp_path)
    large = Boundary(1, {}, {"noise": "0" * (1 << 21)})
    with full_disk(1 << 20), pytest.raises(SaveFailed, match="step 1 could not be written: File too large"):
        made.save(large)
    assert list(tmp_path.iterdir()) == []
    made.strategy.state = lambda handle: 1 / 0
    with pytest.raises(ZeroDivisionError):
        made.save(boundary(1))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_optimizer_is_refused_before_anything_is_loaded(tmp_path):
    policy, made = maker(tmp_path)
    made.save(boundary(1))
    policy.module, made.structure = "second", {"optimizer": "sgd"}
    with pytest.raises(Refused, match="--optimizer sgd: the checkpoint .*step_000001 was made with adamw"):
        restored(made)
    assert policy.module == "second"


@pytest.mark.parametrize(
    "other, difference",
    [
        ({"c": (1,)}, "c is only in this model"),
        ({"a": None}, "a is only in the checkpoint"),
        ({"b": (5,)}, r"b is \[4\] there, \[5\] here"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_before_anything_is_loaded(tmp_path, other, difference):
    policy, made = maker(tmp_path)
    made.save(boundary(1))
    policy.module, policy.model = "second", model(**other)
    with pytest.raises(
        Refused, match=f"--pretrain: the checkpoint .* of another model \\({difference}\\); .*--pretrain tiny"
    ):
        restored(made)
    assert policy.module == "second"


def test_a_checkpoint_of_an_earlier_version_is_refused_and_stays(tmp_path):
    """What is taken for damaged is removed by the next save."""
    _, made = maker(tmp_path)
    old = made.save(boundary(1))
    (old / "state.sha256").unlink()
    (old / "random.pt").touch()
    with pytest.raises(Refused, match="step_000001 was made by an earlier version, whose format is not read any more"):
        restored(made)
    assert old.is_dir()


def test_a_run_with_a_critic_does_not_go_on_from_one_without(tmp_path):
    _, made = maker(tmp_path)
    made.save(boundary(1))
    _, made = maker(tmp_path, critic=Handle("critic", model()))
    with pytest.raises(Refused, match="--advantage_estimator: the checkpoint .* was made without a critic"):
        restored(made)


def rewrite(change):
    """Changes the parsed state.json, as another version might have written it."""

    def damage(path):
        content = json.dumps(change(json.loads((path / "state.json").read_text()))).encode()
        (path / "state.json").write_bytes(content)
        (path / "state.sha256").write_text(own_sum(content))

    return damage


def cut(name):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:-1])


def flip(name):
    """One bit in the middle."""

    def damage(path):
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    return damage


def file_for_folder(path):
    shutil.rmtree(path)
    path.write_text("")


RANK_0 = "policy/rank_00000.safetensors"
DAMAGE = {
    "no state.json": (lambda path: (path / "state.json").unlink(), "state.json is missing"),
    "half of state.json": (cut("state.json"), "state.json is not as it was written"),
    "a bit of state.json": (flip("state.json"), "state.json is not as it was written"),
    "a bit of its sum": (flip("state.sha256"), "state.json is not as it was written"),
    "half of its sum": (cut("state.sha256"), "state.json is not as it was written"),
    "no sum": (lambda path: (path / "state.sha256").unlink(), "state.sha256 is missing"),
    "a list for the state": (rewrite(lambda state: [state]), "TypeError: "),
    "another step": (rewrite(lambda state: {**state, "progress": {"step": 7}}), "its state.json is of step 7"),
    "no random numbers": (lambda path: (path / "random_0.json").unlink(), "random_0.json is missing"),
    "half of the random numbers": (cut("random_0.json"), "random_0.json has "),
    "a bit of the random numbers": (flip("random_0.json"), "random_0.json is not as it was written"),
    "half a policy": (cut(RANK_0), f"{RANK_0} has "),
    "a bit of the policy": (flip(RANK_0), f"{RANK_0} is not as it was written"),
    "no policy": (lambda path: shutil.rmtree(path / "policy"), f"{RANK_0} is missing"),
    "a file for the folder": (file_for_folder, "it is a file, not a folder"),
    "an empty folder": (lambda path: (shutil.rmtree(path), path.mkdir()), "state.json is missing"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(tmp_path, kind):
    damage, reason = DAMAGE[kind]
    policy, made = maker(tmp_path)
    made.save(boundary(1))
    policy.module = "other"
    damage(made.save(boundary(2)))
    step, found = restored(made)
    assert step == 1 and found.path == tmp_path / "step_000001"
    assert (
        policy.module == "first" and len(found.damaged) == 1 and found.damaged[0].startswith(f"step_000002 ({reason}")
    ), found.damaged
    made.save(boundary(2))  # the damaged one is not taken for this run's
    assert restored(made) == (2, Restored(2, tmp_path / "step_000002", ["news"], [], []))


@pytest.mark.parametrize("entry", ("files", "began_at", "progress"))
def test_a_state_without_an_entry_is_another_version_s_and_stays(tmp_path, entry):
    """Its sums are right, so it is as it was written; what is taken for damaged is removed by the next save."""
    _, made = maker(tmp_path)
    made.save(boundary(1))
    rewrite(lambda state: {name: value for name, value in state.items() if name != entry})(made.save(boundary(2)))
    with pytest.raises(Refused, match=f"step_000002 was made by another version: it has no entry '{entry}'; go on"):
        restored(made)
    assert (tmp_path / "step_000002").is_dir()


def test_what_lies_beyond_goes_with_the_first_save(tmp_path):
    """Else a later step of the branch that was left would win at the next resume."""
    _, made = maker(tmp_path, keep=9)
    for step in (1, 2, 3, 4):
        cut("random_0.json")(made.save(boundary(step)))
    made.save(boundary(1))
    assert restored(made)[0] == 1 and len(list(tmp_path.glob("step_*"))) == 4
    made.save(boundary(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step_000001", "step_000002"]


def test_without_a_whole_one_all_are_named_in_one_line(tmp_path):
    _, made = maker(tmp_path)
    for step in (1, 2):
        (made.save(boundary(step)) / "random_0.json").unlink()
    with pytest.raises(Refused) as refused:
        restored(made)
    assert str(refused.value) == (
        f"--load_checkpoint: no checkpoint in {tmp_path} can be loaded: step_000002 (random_0.json is missing), "
        "step_000001 (random_0.json is missing); bring one back, or start anew with another --save_path"
    )
    assert (tmp_path / "step_000001").is_dir() and (tmp_path / "step_000002").is_dir()


@pytest.mark.parametrize(
    "error, raised, message",
    [
        (MemoryError(), MemoryError, ""),
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError, "CUDA"),
        (
            PermissionError(errno.EACCES, "Permission denied", "w"),
            Refused,
            "step_000002 cannot be read: Permission denied",
        ),
        (OSError(errno.EIO, "Input/output error"), Refused, "Input/output error; mend that, or move the folder away"),
    ],
)
def test_a_machine_that_fails_makes_no_checkpoint_a_damaged_one(tmp_path, monkeypatch, error, raised, message):
    """The next save would remove it."""
    _, made = maker(tmp_path)
    made.save(boundary(1))
    made.save(boundary(2))

    def fails(handle, reader):
        raise error

    with monkeypatch.context() as patch, pytest.raises(raised, match=message):
        patch.setattr(made.strategy, "load_state", fails)
        restored(made)
    assert restored(made)[0] == 2


def test_a_state_that_the_loop_cannot_take_is_damage_too(tmp_path):
    _, made = maker(tmp_path)
    made.save(boundary(1, prompts="good"))
    made.save(boundary(2, prompts="bad"))

    def apply(state):
        if state["prompts"] == "bad":
            raise ValueError("no stream")
        return []

    found = made.restore(apply)
    assert found.path.name == "step_000001" and found.damaged == ["step_000002 (ValueError: no stream)"]


def test_what_killed_saves_left_is_removed_and_named(tmp_path):
    _, made = maker(tmp_path)
    (tmp_path / ".step_000003.tmp" / "policy").mkdir(parents=True)
    assert restored(made) == (None, None) and list(tmp_path.iterdir()) == []
    made.save(boundary(1))
    (tmp_path / ".step_000003.tmp").mkdir()
    assert restored(made)[1].left_over == [".step_000003.tmp"] and not (tmp_path / ".step_000003.tmp").exists()


def test_what_a_killed_save_had_put_aside_is_whole_and_gets_its_name_back(tmp_path):
    _, made = maker(tmp_path)
    path = made.save(boundary(2))
    path.rename(tmp_path / ".step_000002.old")
    assert restored(made) == (2, Restored(2, path, ["news"], [], []))


def test_with_hf_the_checkpoint_holds_a_model_folder(tiny_folder, tiny_model, tmp_path):
    policy, given = Handle("module", tiny_model), read_given(ModelArgs(pretrain=str(tiny_folder / "model")))
    made = Checkpointer(
        CheckpointFolder(tmp_path, 1, 1),
        ONE_RANK,
        FakeStrategy(),
        policy,
        {"policy": given},
        with_hf=True,
        structure={},
    )
    path = made.save(Boundary(1, {}, random_state())) / "hf"
    assert json.loads((path / "config.json").read_text())["model_type"] == "qwen2"
    assert (path / "model.safetensors").is_file() and (path / "tokenizer.json").is_file()
