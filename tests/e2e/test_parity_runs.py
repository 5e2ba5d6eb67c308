"""The gate between engine and trainer: every fault that can be put into an engine is named in the step it begins."""

from __future__ import annotations

from pathlib import Path

import own_weights
import pytest
from on_ranks import run_on
from runs import Ended, prepare, rows, train, weights, words

COMMON = "--save_interval 0 --reward_fn shaped.py:length --quiet --max_steps 3"
FLAGS = f"--fsdp --save_path run {COMMON}"
FAULTS = {
    "StaleTensor": ("after step 1: stale tensor: model.layers.1.mlp.up_proj.weight", ""),
    "StaleHead": ("after step 1: tied head: lm_head.weight", ""),
    "ReadsItsFiles": ("after step 1: wrong checkpoint reloaded:", ""),
    "Lukewarm": ("step 2: temperature:", ""),
    "Untempered": ("step 2: temperature:", "--temperature 0.6"),
    "Filtered": ("step 2: filters:", ""),
    "OpensPrompts": ("step 2: re-tokenised text:", ""),
    "OpensPromptsInSecret": ("step 2: re-tokenised text:", ""),
    "EncodesResponses": ("step 2: re-tokenised text:", "--pretrain merging --actor_learning_rate 1e-6"),
    "HalfPrecision": ("after step 0: precision:", ""),
    "HalfPrecisionInSecret": ("after step 0: precision:", ""),
    "StaleInSecret": ("after step 1: stale weights:", ""),
}


@pytest.fixture
def engine(monkeypatch):
    return lambda name: monkeypatch.setattr("lightrft.build.rollouts.LocalEngine", getattr(own_weights, name))


def warnings(ended: Ended) -> list[str]:
    return [line.removeprefix("warning: ") for line in ended.out.splitlines() if line.startswith("warning: ")]


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named_in_the_step_in_which_it_begins(here, engine, name):
    """And under no other name in that run."""
    begins, flags = FAULTS[name]
    own_weights.write_merging(here / "merging")
    engine(name)
    ended = train(f"{FLAGS} {flags}")
    assert ended.code == 0, ended.err
    [line] = warnings(ended)
    assert line.startswith(begins)


@pytest.mark.parametrize("seed", (114, 120, 134))
def test_few_tokens_that_rounding_hardly_changes_once_are_no_other_fault(here, engine, seed):
    engine("HalfPrecisionInSecret")
    ended = train(f"{FLAGS} --seed {seed}")
    assert ended.code == 0, ended.err
    [line] = warnings(ended)
    assert line.startswith("after step 0: precision:")


SOUND = {  # precisions of the trainer and its engine: what the gap comes to in fifty steps
    "fp32": ("", 1e-5),
    "bf16 engine": ("--engine_dtype bf16", 0.02),
    "bf16": ("--bf16", 0.02),
}


@pytest.mark.parametrize("precisions", SOUND)
def test_what_is_sound_raises_nothing(here, engine, precisions):
    flags, most = SOUND[precisions]
    if not flags:
        engine("Own")
    ended = train(f"{FLAGS} --max_steps 50 --eval_steps 10 --save_steps 20 {flags}")
    assert ended.code == 0 and not warnings(ended), ended.out
    gaps = [row["mismatch/gap_mean"] for row in rows(here / "run")]
    assert len(gaps) == 50 and 0 < max(gaps) < most


def test_with_error_the_run_ends_and_keeps_what_it_had_learned_before(here, engine):
    engine("Lukewarm")
    ended = train(f"{FLAGS} --on_logprob_gap error")
    [line] = ended.problems
    assert ended.code == 1 and line.startswith("error: step 2: temperature: the engine's log-probabilities are")
    assert "they fit temperature 0.75" in line and "(--on_logprob_gap error)" in line
    assert "the state after step 1 is kept" in ended.out
    engine("Own")
    assert train(f"{FLAGS} --load_checkpoint").code == 0
    assert len(rows(here / "run")) == 3


def test_with_off_nobody_asks(here, engine, monkeypatch):
    engine("Filtered")
    monkeypatch.setattr(own_weights.Own, "fingerprints", None)
    ended = train(f"{FLAGS} --on_logprob_gap off")
    assert ended.code == 0 and not warnings(ended), ended.err
    assert rows(here / "run")[1]["mismatch/gap_mean"] > 0.01
    assert rows(here / "run")[1]["mismatch/gap_p99"] <= rows(here / "run")[1]["mismatch/gap_max"]


MODES = "warn", "off"
ON_TWO = {  # the second fault passes by every hypothesis, after the first sync and at each step
    "one": ("Lukewarm", "step 2: temperature", "--fsdp"),
    "fsdp": ("HalfPrecisionInSecret", "after step 0: precision", "--fsdp"),
    "zero2": ("HalfPrecisionInSecret", "after step 0: precision", ""),
    "zero3": ("HalfPrecisionInSecret", "after step 0: precision", "--zero_stage 3"),
    "sequence": ("HalfPrecisionInSecret", "after step 0: precision", "--fsdp --sp_size 2"),
}


@pytest.fixture(scope="module")
def on_two(tiny_folder: Path, tmp_path_factory) -> tuple[Path, dict[str, list[Ended]]]:
    """Each case twice, with the gate and without, by "case-mode"."""
    folder = prepare(tmp_path_factory.mktemp("parity_on_two"), tiny_folder)
    lines = {
        f"{case}-{mode}": [fault, *words(f"{COMMON} --max_steps 2 {flags} --on_logprob_gap {mode}")]
        for case, (fault, _, flags) in ON_TWO.items()
        for mode in MODES
    }
    named = [[*line, "--save_path", name] for name, line in lines.items()]
    return folder, dict(zip(lines, run_on(2, named, folder, script="faulty_ranks.py"), strict=True))


@pytest.mark.parametrize("case", ON_TWO)
def test_two_ranks_look_for_the_cause_together_and_change_nothing(on_two, case):
    """The forward passes of the diagnosis are made between a backward pass and its optimizer step."""
    folder, ended = on_two
    warned, off = f"{case}-warn", f"{case}-off"
    assert [rank.code for name in (warned, off) for rank in ended[name]] == [0] * 4, ended[warned][0].err
    [line] = warnings(ended[warned][0])
    assert line.startswith(ON_TWO[case][1]) and not warnings(ended[warned][1])
    assert weights(folder / warned) == weights(folder / off)
    assert rows(folder / warned) == rows(folder / off)
