"""Processes that share sequences take the steps of one process that has all rows alone (`--sp_size`)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from types import SimpleNamespace

import pytest
import torch
from launch import launch
from policies import largest_difference, save_critic, small_model
from ranks import MODELS, Case, turn
from sequences import CASES, model_of

from lightrft.errors import Refused
from lightrft.models.attention import attention
from lightrft.ranks.sequences import SequenceRanks

RUNS = [(*sizes, place, case) for sizes, cases in CASES.items() for place, case in enumerate(cases)]


@pytest.fixture(scope="module")
def critic(tmp_path_factory):
    """sp_size -> the folder of a critic with heads that so many processes can divide."""
    return cache(lambda sp_size: str(_saved(tmp_path_factory.mktemp("critic"), model_of(sp_size))))


def _saved(folder, model: str):
    return save_critic(folder, partial(small_model, **MODELS[model]))


@pytest.fixture(scope="module")
def shared(critic, tmp_path_factory):
    """(processes, sp_size) -> what all cases gave on so many real processes, over gloo, in one launch."""

    def run(processes: int, sp_size: int):
        out = tmp_path_factory.mktemp("sequences") / "found.pt"
        launch("sequences.py", processes, out, critic(sp_size), sp_size, seconds=300)
        return torch.load(out)

    return cache(run)


@pytest.fixture(scope="module")
def alone(world, critic):
    """Parameters before and after, and metrics, of one process that has all rows, in one micro-batch a step."""
    run = cache(lambda case, folder: turn(world, case, folder))
    return lambda case, sp_size: run(replace(case, micro=4, dealt="uneven"), critic(sp_size))


def name_of(value: object) -> str | None:
    return f"{value.estimator} {value.strategy} {value.more} {value.model}" if isinstance(value, Case) else None


@pytest.mark.parametrize(("processes", "sp_size", "place", "case"), RUNS, ids=name_of)
def test_sharing_sequences_does_not_matter(shared, alone, processes, sp_size, place, case):
    gave = shared(processes, sp_size)
    before, wanted, wanted_metrics = alone(case, sp_size)
    moved = largest_difference(wanted, before)
    assert moved > 1e-3, "the turn must move the parameters, or it shows nothing"
    bound = 1e-6 if case.strategy == "float64" else 1e-4  # float32 parameters of size 1, moved by some 1e-2
    assert largest_difference(gave["parameters"][place], wanted) < bound * moved
    assert gave["metrics"][0][place] == pytest.approx(wanted_metrics, rel=1e-5, abs=1e-6)  # float32
    for metrics in gave["metrics"]:
        assert metrics[place] == gave["metrics"][0][place]


@pytest.mark.parametrize(("processes", "sp_size"), CASES)
def test_a_process_computes_its_part_of_every_row(shared, processes, sp_size):
    for part in shared(processes, sp_size)["parts"]:
        assert part["seen"] == [-(-part["width"] // sp_size)]
        assert part["alone"] < 1e-12, "a model that is run alone attends to its own rows"


def test_a_model_whose_parts_are_not_the_whole_is_refused_by_all(shared):
    first, *others = shared(2, 2)["told"]
    assert others == [first] and first.startswith("--sp_size 2: --pretrain it: its parts of a row are off the whole by")


def test_what_attention_is_told_is_honoured_or_refused(world):
    """On one process, whose part is the whole: a scale counts; a cap, sinks, a window, masks of parts do not pass."""
    ranks, module = SequenceRanks(world), SimpleNamespace(num_key_value_groups=2)
    draw = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, heads, 5, 4, generator=draw) for heads in (4, 2, 2))
    kept = {"position_ids": 1, "use_cache": True, "sliding_window": 5, "softcap": None, "output_attentions": False}
    for scaling in (None, 0.1):
        plain = attention(module, query, key, value, None, scaling=scaling)[0]
        assert torch.equal(attention(module, query, key, value, None, ranks, scaling=scaling, **kept)[0], plain)
    for told in ({"softcap": 30.0}, {"s_aux": key}, {"position_bias": key}, {"sliding_window": 4}):
        with pytest.raises(Refused, match="--sp_size: .*use --sp_size 1"):
            attention(module, query, key, value, None, ranks, **told)
    with pytest.raises(Refused, match="masks of its own"):
        attention(module, query, key, value, torch.ones(1, 1, 3, 5, dtype=torch.bool), ranks)
