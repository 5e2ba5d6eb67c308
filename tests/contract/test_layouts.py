"""Flags that lay out memory over one to four processes: steps are the plain loop's, and memory lies as told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from late_deadlines import WAITED
from launch import launch
from layouts import IDS, LAYOUTS, REFERENCES, SGD, Found, Reference, examine, examine_reference
from policies import arguments, own_strategy, small_model

CASES = [(processes, flags) for processes, layouts in LAYOUTS.items() for flags in layouts]
PARAMETERS = sum(parameter.numel() for parameter in small_model().parameters())


@pytest.fixture(scope="module")
def on_ranks(world, tmp_path_factory):
    """processes, flags -> what each rank found; one launch for all flags of so many processes."""
    kept: dict[int, list[dict[str, Any]]] = {}

    def found(processes: int, flags: str) -> list[Any]:
        if processes not in kept and processes > 1:
            out = tmp_path_factory.mktemp("layouts") / "found.pt"
            kept[processes] = []
            launch("layouts.py", processes, out, seconds=200)
            kept[processes] = torch.load(out)
        kind = Reference if flags.startswith("reference ") else Found
        look = examine if kind is Found else examine_reference
        if processes == 1:
            return [look(world, flags.removeprefix("reference "))]
        return [kind(**rank[flags]) for rank in kept[processes]]

    return found


@pytest.mark.parametrize(("processes", "flags"), CASES)
def test_steps_are_those_of_one_plain_process(on_ranks, processes, flags):
    for rank in on_ranks(processes, flags):
        for name, difference in rank.differences.items():
            assert difference < (1e-4 if "generating" in name else 1e-6), name  # logits of up to 10
        assert all(moved > 1e-3 for moved in rank.moved.values())


def facts(found: list[Found], name: str) -> list:
    return [rank.facts[name] for rank in found]


@pytest.mark.parametrize(("size", "processes"), ((1, 1), (1, 2), (2, 4), (3, 3)))
def test_so_many_processes_share_one_copy_of_the_shards(on_ranks, size, processes):
    found = on_ranks(processes, f"--fsdp --hybrid_shard_size {size}")
    copies = processes // size
    assert facts(found, "mesh") == [(processes,) if copies == 1 else (copies, size)] * processes
    held, whole = zip(*facts(found, "rows"), strict=True)
    assert sum(held) == copies * whole[0]


ROOT, NONE, ALL = [True, False, False], [False] * 3, [True] * 3


@pytest.mark.parametrize(
    ("flags", "times", "between"),
    [
        ("--fsdp", (3 * (1 + 2 + 2), 3 * 3), NONE),  # the root in a forward pass, two layers in both, each time
        ("--fsdp --fsdp_reshard step", (3, 3), ALL),
    ],
)
def test_weights_and_gradients_travel_as_often_as_told(on_ranks, flags, times, between):
    """And whole ones are there no longer: a pass that no backward pass follows leaves the root alone, as ever."""
    found = on_ranks(2, flags)
    assert facts(found, "gathered, reduced") == [times] * 2
    assert facts(found, "whole") == [[ROOT, between, between, NONE, ROOT]] * 2


def test_no_pass_after_a_step_has_the_weights_from_before_it(on_ranks):
    cases = [(processes, flags) for processes, flags in CASES if flags.startswith("--fsdp")]
    for rank in (rank for case in cases for rank in on_ranks(*case)):
        assert rank.facts["stale"] < 1e-4 < 1e-3 < rank.facts["moved"]


@pytest.mark.parametrize("stage", (1, 2, 3))
@pytest.mark.parametrize("processes", (1, 2))
def test_deepspeed_steps_in_host_memory(on_ranks, stage, processes):
    found = on_ranks(processes, f"--zero_stage {stage} --adam_offload")
    assert facts(found, "stage") == [stage] * processes
    assert facts(found, "on the host") == [True] * processes
    assert set(facts(found, "optimizer")) == {"AdamW"}
    assert sum(facts(found, "moments")) == pytest.approx(PARAMETERS, rel=0.01)  # and padding


@pytest.mark.parametrize("flags", ("--zero_stage 3 --zpg 2", "--zero_stage 3 --zpg 2 --adam_offload", "--zero_stage 3"))
def test_so_many_processes_share_a_second_copy_of_the_weights(on_ranks, flags):
    """From a forward pass on; the group of another run's does not go on."""
    embedding = small_model().get_input_embeddings().weight.numel()
    assert facts(on_ranks(4, flags), "second copy") == [embedding // 2 if "--zpg" in flags else None] * 4


@pytest.mark.parametrize(
    ("flags", "overlaps"),
    [
        ("--zero_stage 1 --overlap_comm", True),
        ("--zero_stage 2 --overlap_comm", True),
        ("--zero_stage 3 --no-overlap_comm", False),
        ("--zero_stage 3 --adam_offload", False),  # unset, without a GPU
    ],
)
def test_deepspeed_overlaps_where_it_is_told_to(on_ranks, flags, overlaps):
    assert facts(on_ranks(2, flags), "overlaps") == [overlaps] * 2


HELD = [(processes, flags) for processes, layouts in REFERENCES.items() for flags in layouts]


@pytest.mark.parametrize(("processes", "flags"), HELD)
def test_a_reference_is_shared_as_told_and_scores_as_a_whole_one(on_ranks, processes, flags):
    found: list[Reference] = on_ranks(processes, f"reference {flags}")
    size = shared_by(flags, processes)
    for rank in found:
        assert rank.difference < 1e-6 and rank.handed_out == 0
        assert rank.rows_after == rank.rows, "a pass leaves nothing whole"
        assert rank.on_host == ("_offload" in flags)
    assert sum(rank.rows[0] for rank in found) == found[0].rows[1] * processes // size


@pytest.mark.parametrize("flags", ("--zero_stage 2", "--zero_stage 3", "--fsdp"))
def test_a_reference_in_bfloat16_starts_as_the_policy_does(world, flags):
    """It is loaded in the precision of the compute, and the policy in float32: the KL begins at 0."""
    strategy = own_strategy(arguments(flags), world, "bf16")
    policy = strategy.prepare(small_model(), SGD)
    frozen = small_model().requires_grad_(False)
    for parameter in frozen.parameters():  # as it is loaded; rotary frequencies stay float32
        parameter.data = parameter.data.bfloat16()
    reference = strategy.prepare(frozen, None)
    with torch.no_grad():
        left, right = (handle.module(input_ids=IDS, use_cache=False).logits.float() for handle in (policy, reference))
    assert torch.equal(left, right)


def shared_by(flags: str, processes: int) -> int:
    """Processes that share one copy of the reference."""
    told = [int(word) for name, word in zip(flags.split(), flags.split()[1:], strict=False) if "shard_size" in name]
    return told[0] if told else processes if "--fsdp" in flags or "3" in flags else 1


def test_a_rank_that_never_comes_is_waited_for_as_long_as_told(tmp_path):
    launch("late_deadlines.py", 2, tmp_path / "waited.pt", seconds=60)
    assert all(0.9 * WAITED < seconds < 2 * WAITED for seconds in torch.load(tmp_path / "waited.pt"))
