"""The gate between engine and trainer: every fault that can be put into an engine is named in the step it begins."""

from __future__ import annotations

import own_weights
import pytest
from runs import train

FLAGS = "--fsdp --save_path run --save_interval 0 --reward_fn shaped.py:length --quiet --max_steps 3"
FAULTS = {
    "StaleTensor": ("after step 1: stale tensor: model.layers.1.mlp.up_proj.weight", ""),
    "StaleHead": ("after step 1: tied head: lm_head.weight", ""),
    "ReadsItsFiles": ("after step 1: wrong checkpoint reloaded:", ""),
    "Lukewarm": ("step 2: temperature:", ""),
    "Untempered": ("step 2: temperature:", "--temperature 0.6"),
    "Filtered": ("step 2: filters:", ""),
    "OpensPrompts": ("step 2: re-tokenised text:", ""),
    "OpensPromptsInSecret": ("step 2: re-tokenised text:", ""),
    "HalfPrecision": ("after step 0: precision:", ""),
    "HalfPrecisionInSecret": ("after step 0: precision:", ""),
    "StaleInSecret": ("after step 1: stale weights:", ""),
}


@pytest.fixture
def engine(monkeypatch):
    return lambda name: monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", getattr(own_weights, name))


def warnings(ended):
    return [line.removeprefix("warning: ") for line in ended.out.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_the_step_in_which_it_begins(here, engine, name):
    begins, flags = FAULTS[name]
    engine(name)
    ended = train(f"{FLAGS} {flags}")
    assert ended.code == 0, ended.err
    print("\n".join(warnings(ended)))
    assert warnings(ended)[0].startswith(begins)
