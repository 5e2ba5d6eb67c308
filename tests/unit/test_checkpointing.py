from __future__ import annotations

import json
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from lightrft.checkpointing import Checkpointer, Due, random_state, set_random_state
from lightrft.errors import Refused
from lightrft.strategy.base import Handle, named_tensors
from lightrft.strategy.checkpoint import CheckpointFolder


def draws():
    return random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(3).tolist()


def test_random_states_go_through_a_file_and_give_the_same_numbers(tmp_path):
    draws()  # the odd Gaussians of both generators are cached now
    torch.save(random_state(), tmp_path / "random.pt")
    wanted = [draws() for _ in range(3)]
    set_random_state(torch.load(tmp_path / "random.pt", weights_only=True))
    assert [draws() for _ in range(3)] == wanted


@pytest.mark.parametrize("every, step, due", [(3, 3, True), (3, 4, False), (None, 3, False), (1, 7, True)])
def test_due_by_steps(every, step, due):
    assert Due(every, 0)(step, 0.1, 0.2) is due


@pytest.mark.parametrize(
    "every, before, after, due",
    [(1, 0.9, 1.0, True), (1, 1.0, 1.1, False), (2, 0.9, 1.1, False), (2, 1.9, 2.3, True), (1, 0.5, 3.5, True)],
)
def test_due_by_episodes(every, before, after, due):
    assert Due(None, every)(1, before, after) is due


@dataclass
class FakeStrategy:
    fail: bool = False

    def save(self, handle, path):
        (path / "weights").write_text(str(handle.module))
        if self.fail:
            raise OSError("no space left on device")

    def load(self, handle, path):
        handle.module = (path / "weights").read_text()

    def full_params(self, handle):
        return named_tensors(handle.model)


RECORD = {"arguments": {"fsdp": {"value": False}}}


def test_a_checkpoint_brings_back_policy_state_and_random_numbers(tmp_path):
    policy = Handle("first", None)
    made = Checkpointer(CheckpointFolder(tmp_path, 2, 1), FakeStrategy(), policy, None, with_hf=False, structure={})
    assert made.restore() is None
    loop = {"progress": {"step": 3}, "prompts": {"next": 12, "queue": [5]}, "record": RECORD}
    path = made.save(3, loop)
    wanted, policy.module = draws(), "second"
    found, state = made.restore()
    assert found == path and policy.module == "first" and draws() == wanted
    assert state == loop
    assert not (path / "hf").exists()


def test_a_checkpoint_that_fails_leaves_the_one_before(tmp_path):
    strategy, policy = FakeStrategy(), Handle("first", None)
    made = Checkpointer(CheckpointFolder(tmp_path, 1, 1), strategy, policy, None, with_hf=False, structure={})
    made.save(1, {"step": 1, "record": RECORD})
    strategy.fail = True
    with pytest.raises(OSError, match="no space"):
        made.save(2, {"step": 2, "record": RECORD})
    assert made.restore()[1]["step"] == 1


def test_a_checkpoint_of_another_strategy_is_refused_before_anything_is_loaded(tmp_path):
    policy = Handle("first", None)
    made = Checkpointer(CheckpointFolder(tmp_path, 1, 1), FakeStrategy(), policy, None, with_hf=False, structure={})
    made.save(1, {"step": 1, "record": RECORD})
    policy.module, made.structure = "second", {"fsdp": True}
    with pytest.raises(Refused, match="--fsdp True: the checkpoint .*step_000001 was made with False"):
        made.restore()
    assert policy.module == "second"


def test_with_hf_the_checkpoint_holds_a_model_folder(tiny_model, tiny_tokenizer, tmp_path):
    policy = Handle("module", tiny_model)
    made = Checkpointer(
        CheckpointFolder(tmp_path, 1, 1), FakeStrategy(), policy, tiny_tokenizer, with_hf=True, structure={}
    )
    path = made.save(1, {}) / "hf"
    assert json.loads((path / "config.json").read_text())["model_type"] == "qwen2"
    assert (path / "model.safetensors").is_file() and (path / "tokenizer.json").is_file()
