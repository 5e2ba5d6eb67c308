"""What the batch sizes mean, how they fit each other and the processes."""

from __future__ import annotations

import time

import pytest
from command_lines import broken_rules, notices, parsed

from lightrft.args import check, optimizer_steps, prompts_per_step
from lightrft.args.batching import legal_micro_batches, legal_train_batches
from lightrft.args.hardware import assumed_gpus, nearest_gpus
from lightrft.args.rules import RULES
from lightrft.args.settings import Problem


@pytest.mark.parametrize(
    "rollout, train, n, epochs, steps, prompts",
    [
        (4, 16, 4, 1, 1, 4),  # exactly on-policy
        (4, 8, 4, 1, 2, 4),  # two optimizer steps a rollout
        (4, 8, 4, 3, 6, 4),
        (4, 48, 4, 1, 1, 12),  # three rollouts a step
        (64, 128, 8, 1, 4, 64),  # the reference document's own example
    ],
)
def test_what_the_batch_sizes_mean(rollout: int, train: int, n: int, epochs: int, steps: int, prompts: int):
    args = parsed(
        f"--rollout_batch_size {rollout} --train_batch_size {train} --n_samples_per_prompt {n} --max_epochs {epochs}"
    )
    assert (optimizer_steps(args), prompts_per_step(args)) == (steps, prompts)
    check(args)


def test_nearest_legal_batches():
    assert legal_train_batches(16, 12, 1) == [8, 16]
    assert legal_train_batches(16, 20, 1) == [16, 32]
    assert legal_train_batches(16, 3, 1) == [2, 4]
    assert legal_train_batches(16, 16, 3) == [48]
    assert legal_train_batches(24, 20, 4) == [12, 24]
    assert legal_train_batches(6, 9, 4) == [12]
    assert legal_micro_batches(16, 3, 1) == [2, 4]
    assert legal_micro_batches(16, 32, 1) == [16]
    assert legal_micro_batches(16, 3, 2) == [2, 4]
    assert legal_micro_batches(12, 5, 2) == [3, 6]
    assert legal_micro_batches(16, 3, 3) == []


def across(text: str, world: int) -> list[str]:
    """The problems that so many processes make."""
    return [str(entry) for rule in RULES for entry in rule(parsed(text), world) if isinstance(entry, Problem)]


def test_several_processes():
    assert across("", 2) == []
    assert across("", 3) == [
        "--train_batch_size 16 is not divisible by --micro_train_batch_size 1 x 3 processes = 3; "
        "nearest: --train_batch_size 48",
        "--rollout_batch_size 4 is not divisible by 3 processes; nearest: --rollout_batch_size 3 or 6",
    ]
    assert across("", 8) == ["--rollout_batch_size 4 is not divisible by 8 processes; nearest: --rollout_batch_size 8"]


@pytest.mark.parametrize(
    "text, world, line",
    [
        ("--engine_tp_size 3", 8, "--engine_tp_size 3 does not divide 8 processes; use --engine_tp_size 2 or 4"),
        ("--engine_tp_size 16", 8, "--engine_tp_size 16 does not divide 8 processes; use --engine_tp_size 8"),
        (
            "--sp_size 2",
            1,
            "--sp_size 2 does not divide 1 process; use --sp_size 1, or start 2 processes with torchrun",
        ),
        (
            "--engine_tp_size 2 --rollout_batch_size 6 --train_batch_size 24",
            8,
            "--rollout_batch_size 6 is not divisible by 4 engines of 2 processes; nearest: --rollout_batch_size 4 or 8",
        ),
    ],
)
def test_what_the_processes_are_divided_into(text: str, world: int, line: str):
    assert line in across(text, world)


def test_a_watchdog_that_comes_after_the_timeout_is_told():
    assert notices("--watchdog_s 60 --assume_gpus 2x80GB") == notices("--watchdog_s 3600") == []
    (line,) = notices("--watchdog_s 3600 --assume_gpus 2x80GB")
    assert line.startswith("--watchdog_s 3600: a process that waits for another one fails after --dist_timeout_s 1800")


def test_fewer_engines_and_data_parallel_ranks_than_processes():
    """4 prompts suit 4 engines of 2 processes, and 8 samples 8 processes that share sequences in pairs."""
    for text in ("--engine_tp_size 2 --train_batch_size 8", "--engine_tp_size 8", "--sp_size 2 --engine_tp_size 2"):
        assert all("not built yet" in line for line in across(text, 8))
    assert across("--train_batch_size 4", 8)[0].startswith("--train_batch_size 4 is not divisible by")
    sp = "--train_batch_size 4 --sp_size 2 --engine_tp_size 2"
    assert all("not built yet" in line for line in across(sp, 8))


def test_assumed_gpus_take_the_place_of_this_machine():
    assert broken_rules("--assume_gpus 3x80GB") == broken_rules("", 3) != []
    check(parsed("--assume_gpus 2x80GB"), 3)
    assert notices("--assume_gpus 1x24.5gb") == []


@pytest.mark.parametrize("sizes", ("--train_batch_size 100000000", "--rollout_batch_size 24999997"))
def test_huge_sizes_are_answered_at_once(sizes: str):
    """What would work is worked out, not searched for one by one."""
    start = time.process_time()
    lines = broken_rules(f"{sizes} --micro_train_batch_size 3")
    assert time.process_time() - start < 1
    assert lines and all("nearest: --train_batch_size" in line for line in lines)


@pytest.mark.parametrize(
    "text, meant",
    [
        *(("2x80GBB", "2x80GB"), ("2x80", "2x80GB"), ("4*24.5", "4x24.5GB"), ("2 x 80 GiB", "2x80GB")),
        *(("8", "1x8GB"), ("80GB", "1x80GB"), ("8x", "8x80GB"), ("8xH100", "8x80GB"), ("H100x8", "8x80GB")),
        *(("0x80GB", "1x80GB"), ("2x0GB", "1x80GB"), ("1x2x3", "1x80GB"), ("many", "1x80GB"), ("", "1x80GB")),
    ],
)
def test_what_was_meant_by_other_texts_for_gpus(text, meant):
    assert nearest_gpus(text) == meant and assumed_gpus(parsed(f"--assume_gpus {meant}"))
