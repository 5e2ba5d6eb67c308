"""Flags that lay out memory over one to four processes: steps are the plain loop's, and memory lies as told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from launch import launch
from layouts import LAYOUTS, Found, examine
from policies import small_model

CASES = [(processes, flags) for processes, layouts in LAYOUTS.items() for flags in layouts]
PARAMETERS = sum(parameter.numel() for parameter in small_model().parameters())


@pytest.fixture(scope="module")
def on_ranks(world, tmp_path_factory):
    """processes, flags -> what each rank found; one launch for all flags of so many processes."""
    kept: dict[int, list[dict[str, Any]]] = {}

    def found(processes: int, flags: str) -> list[Found]:
        if processes not in kept and processes > 1:
            out = tmp_path_factory.mktemp("layouts") / "found.pt"
            kept[processes] = []
            launch("layouts.py", processes, out, seconds=200)
            kept[processes] = torch.load(out)
        return [examine(world, flags)] if processes == 1 else [Found(**rank[flags]) for rank in kept[processes]]

    return found


@pytest.mark.parametrize(("processes", "flags"), CASES)
def test_steps_are_those_of_one_plain_process(on_ranks, processes, flags):
    for rank in on_ranks(processes, flags):
        for name, difference in rank.differences.items():
            assert difference < 1e-6, name
            assert rank.moved[name] > 1e-3


def facts(found: list[Found], name: str) -> list:
    return [rank.facts[name] for rank in found]


@pytest.mark.parametrize(("size", "processes"), ((1, 1), (1, 2), (2, 4), (3, 3)))
def test_so_many_processes_share_one_copy_of_the_shards(on_ranks, size, processes):
    found = on_ranks(processes, f"--fsdp --hybrid_shard_size {size}")
    copies = processes // size
    assert facts(found, "mesh") == [(processes,) if copies == 1 else (copies, size)] * processes
    held, whole = zip(*facts(found, "rows"), strict=True)
    assert sum(held) == copies * whole[0]


@pytest.mark.parametrize("stage", (1, 2, 3))
@pytest.mark.parametrize("processes", (1, 2))
def test_deepspeed_steps_in_host_memory(on_ranks, stage, processes):
    found = on_ranks(processes, f"--zero_stage {stage} --adam_offload")
    assert facts(found, "stage") == [stage] * processes
    assert facts(found, "on the host") == [True] * processes
    assert set(facts(found, "optimizer")) == {"AdamW"}
    assert sum(facts(found, "moments")) == pytest.approx(PARAMETERS, rel=0.01)  # and padding
