from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from indexed import indexed

from lightrft.ranks.base import ONE_RANK
from lightrft.track.base import Loggers
from lightrft.track.samples import first_samples
from lightrft.track.trajectories import Trajectories
from lightrft.types import Prompt

NAMES = ["<pad>", "<s>", "<eos>", "a", "b", "ü"]


class Words:
    """All that is asked of a tokenizer."""

    def batch_decode(self, rows):
        return [" ".join(NAMES[token] for token in row) for row in rows]


@pytest.fixture
def step(make_rollout, batch_of):
    """Two rollouts: prompt [1, 3] and response [4, 5, 2]; prompt [1] and response [3], which has no reward."""
    good = make_rollout([1, 3], [4, 5, 2], total=1.5, parts={"rule": 1.0, "length": 0.25}, logprobs=[-0.5, -1.0, -2.0])
    prompt = Prompt(id="p0", messages=({"role": "user", "content": "ü?"},), reference=7, source="sums", position=0)
    prompt = replace(prompt, where="sums.jsonl:3")
    bad = make_rollout([1], [3], error="ValueError: no", finish="length", position=1, logprobs=[-math.inf])
    batch = batch_of(
        [([1, 3, 4, 5, 2], [0, 0, 1, 1, 1]), ([1, 3], [0, 1])],
        advantages=torch.tensor([[0.0, 0.0, 0.25, 0.5, 0.75], [0.0, 0.0, 0.0, 0.0, 0.0]]),
        old_logprobs=torch.tensor([[9.0, 9.0, -0.5, -1.5, -2.5], [9.0, -0.25, 9.0, 9.0, 9.0]]),
    )
    rollouts = [replace(good, prompt=prompt, response="b ü"), bad]
    return rollouts, indexed(batch.filled(group=torch.tensor([0, 1])))


def shown(step, count=2):
    """What the logger gets: outcomes, and the first samples."""
    return [], first_samples(*step, count, ONE_RANK)


def lines(folder, step):
    return [json.loads(line, parse_constant=pytest.fail) for line in (folder / step).read_text().splitlines()]


def test_a_line_per_sample_with_the_response_s_own_positions(tmp_path, step):
    Trajectories(tmp_path, 0, Words()).rollouts(*shown(step), 12)
    good, bad = lines(tmp_path, "step_000012.jsonl")
    assert good == {
        "step": 12,
        "prompt_id": "p0",
        "where": "sums.jsonl:3",
        "source": "sums",
        "group": 0,
        "messages": [{"role": "user", "content": "ü?"}],
        "reference": 7,
        "response": "b ü",
        "finish_reason": "stop",
        "reward": {"total": 1.5, "parts": {"rule": 1.0, "length": 0.25}},
        "error": None,
        "policy_version": 0,
        "tokens": ["b", "ü", "<eos>"],
        "response_ids": [4, 5, 2],
        "rollout_logprobs": [-0.5, -1.0, -2.0],
        "advantages": [0.25, 0.5, 0.75],
        "old_logprobs": [-0.5, -1.5, -2.5],
    }
    assert bad["error"] == "ValueError: no" and bad["reward"] == {"total": None, "parts": {}}
    assert bad["rollout_logprobs"] == [None] and bad["old_logprobs"] == [-0.25] and bad["advantages"] == [0.0]


def test_the_pictures_of_a_prompt_are_saved_once_beside_its_samples(tmp_path, shown_samples):
    made = Trajectories(tmp_path, 0, Words())
    made.rollouts([], shown_samples, 1)
    first, second, plain = lines(tmp_path, "step_000001.jsonl")
    assert first["images"] == second["images"] == ["images/seen_0.png", "images/seen_1.png"] and "images" not in plain
    assert [(tmp_path / name).read_bytes() for name in first["images"]] == list(shown_samples[0].pictures)
    assert first["messages"][0]["content"] == [
        {"type": "image"},
        {"type": "image"},
        {"type": "text", "text": "How *many*?"},
    ]
    times = [path.stat().st_mtime_ns for path in sorted((tmp_path / "images").iterdir())]
    made.rollouts([], shown_samples, 2)
    Trajectories(tmp_path, 1, Words()).rollouts([], shown_samples, 2)
    assert times == [path.stat().st_mtime_ns for path in sorted((tmp_path / "images").iterdir())]


def test_the_first_samples_only_and_later_steps_taken_back(tmp_path, step):
    first = Trajectories(tmp_path, 0, Words())
    for number in (1, 2, 3):
        first.rollouts(*shown(step, 1), number)
    assert len(lines(tmp_path, "step_000003.jsonl")) == 1
    Trajectories(tmp_path, 1, Words()).rollouts(*shown(step, 10), 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001.jsonl", "step_000002.jsonl"]
    assert len(lines(tmp_path, "step_000002.jsonl")) == 2


def test_a_full_disk_leaves_no_half_file(tmp_path, step, full_disk, warnings):
    loggers = Loggers([Trajectories(tmp_path, 0, Words())])
    loggers.rollouts(*shown(step), 1)
    with full_disk(200):
        loggers.rollouts(*shown(step), 2)
        loggers.rollouts(*shown(step), 3)
    assert len(warnings()) == 1 and [path.name for path in tmp_path.iterdir()] == ["step_000001.jsonl"]
