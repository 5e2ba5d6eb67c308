"""`--engine_kwargs`: what is read from it, and what is refused before an engine is started."""

from __future__ import annotations

import pytest

from lightrft.rollouts.engines.base import Sampling
from lightrft.rollouts.engines.settings import read_settings, settings_fault
from lightrft.rollouts.engines.vllm import SET, unsupported


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


@pytest.mark.parametrize(
    "pair, why",
    [
        ("stream_interval=8", "each token is looked at as it comes, for the texts of --stop"),
        ("logits_processors=[x.Y]", "tokens would be drawn from another distribution"),
        ("watermark_config={}", "tokens would be drawn from another distribution"),
        ("override_generation_config={top_k: 1}", "the flags of sampling say it"),
        ("seed=3", "each sample has a seed of its own"),
        ("kv_offloading_size=4", "keys and values of older weights would be used again"),
        ("spec_method=ngram", "it would report other log-probabilities"),
        ("hf_overrides={}", "the model would not be the one that is trained"),
        ("nnodes=2", "an engine is spread by --engine_tp_size alone"),
        ("limit_mm_per_prompt={image: 4}", "--limit_mm_image_per_prompt sets it"),
        ("mm_processor_kwargs={}", "it would see other images than the trainer"),
        ("language_model_only=true", "the trainer hands images over as they are"),
    ],
)
def test_vllm_takes_no_setting_that_changes_what_comes_out(pair, why):
    assert settings_fault([pair], (pair.partition("=")[0],), SET, "vLLM") == f"--engine_kwargs {pair}: {why}"


def test_vllm_says_what_it_cannot_do():
    """It applies min_p before top_p: of p = .5 .3 .2, min_p .5 leaves .5 .3, where .5 alone is .625 and reaches a top_p
    of .6; top_p first keeps .5 .3, and min_p these both. With top_k each keeps the largest, in either order."""
    assert "first token" in (unsupported(Sampling(4, first_temperature=10.0)) or "")
    assert "--min_p 0.1 before --top_p 0.9" in (unsupported(Sampling(4, top_p=0.9, min_p=0.1)) or "")
    assert unsupported(Sampling(4, top_k=5, min_p=0.1)) is None
    assert "no temperature between 0 and 0.01" in (unsupported(Sampling(4, 0.0099)) or "")
    assert unsupported(Sampling(4, 0.01)) is unsupported(Sampling(4, 0.0)) is None
    assert unsupported(Sampling(4, temperature=0.6, top_p=0.9, top_k=5, stop=("a",))) is None
