"""`--engine_kwargs`: what is read from it, and what is refused before an engine is started."""

from __future__ import annotations

import pytest

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.settings import read_settings, settings_fault
from lightrft.rollouts.engines.vllm import unsupported


def test_values_are_read_as_in_a_yaml_file():
    found = read_settings(["max_num_seqs=8", "enforce-eager=true", "name=a=b", "sizes=[1, 2]", "share=1.5e-3"])
    assert found == {"max_num_seqs": 8, "enforce_eager": True, "name": "a=b", "sizes": [1, 2], "share": 0.0015}


@pytest.mark.parametrize(
    "pair, why",
    [
        ("max_num_seqs", "is not of the form name=value"),
        ("max_num_seq=8", "vLLM has no max_num_seq; nearest: max_num_seqs"),
        ("colour=red", "vLLM has no colour"),
        ("max-model-len=8", "--max_len sets it"),
        ("max_num_seqs=[1", "is not a value as in a YAML file"),
    ],
)
def test_what_an_engine_does_not_take_is_said(pair, why):
    told = settings_fault([pair], ("max_num_seqs", "block_size"), {"max_model_len": "--max_len sets it"}, "vLLM")
    assert told is not None and told.startswith(f"--engine_kwargs {pair}") and told.endswith(why)


def test_what_it_takes_is_no_fault():
    assert settings_fault(["max-num-seqs=8", "block_size=16"], ("max_num_seqs", "block_size"), {}, "vLLM") is None


def test_vllm_says_what_it_cannot_do():
    """It applies min_p before top_p: of p = .5 .3 .2, min_p .5 leaves .5 .3, where .5 alone is .625 and reaches a top_p
    of .6; top_p first keeps .5 .3, and min_p these both. With top_k each keeps the largest, in either order."""
    assert "first token" in (unsupported(Sampling(4, first_temperature=10.0)) or "")
    assert "--min_p 0.1 before --top_p 0.9" in (unsupported(Sampling(4, top_p=0.9, min_p=0.1)) or "")
    assert unsupported(Sampling(4, top_k=5, min_p=0.1)) is None
    assert unsupported(Sampling(4, temperature=0.6, top_p=0.9, top_k=5, stop=("a",))) is None
