"""`--mode`: below --config, above the estimator's and the fields' defaults."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import refusal

from lightrft.args import check, parse
from lightrft.args.preset_values import presets_named
from lightrft.args.presets import preset_file, preset_names
from lightrft.args.unbuilt import UNBUILT
from lightrft.errors import Refused

FEW = "--pretrain tiny --prompt_data add.jsonl --save_path out --reward_fn last_number"


def test_there_are_two():
    assert preset_names() == ("cluster", "local")
    assert refusal(parse, f"{FEW} --mode laptop".split())[0] == (
        "--mode laptop is not one of its choices: cluster, local"
    )


@pytest.mark.parametrize("mode", preset_names())
def test_a_preset_gives_the_required_sizes_and_needs_nothing_that_is_not_built(mode: str):
    args = parse(f"{FEW} --mode {mode}".split())
    check(args, strict=True)
    assert not [flag for flag in UNBUILT if args.sources[flag].where != "default"]
    samples = args.batch.rollout_batch_size * args.algorithm.n_samples_per_prompt
    assert args.batch.train_batch_size == samples, "exactly on-policy"


def test_sources_and_precedence(tmp_path: Path):
    config = tmp_path / "run.yaml"
    config.write_text("mode: local\nmax_len: 600\n")
    args = parse(f"{FEW} --config {config} --rollout_batch_size 4 --train_batch_size 16".split())
    lines = preset_file("local").read_text().splitlines()
    where = {name: 1 + next(i for i, line in enumerate(lines) if line.strip().startswith(name)) for name in NAMES}
    assert args.batch.rollout_batch_size == 4
    assert str(args.sources["rollout_batch_size"]) == f"cli (hides preset local.yaml:{where['rollout_batch_size']} = 8)"
    assert str(args.sources["max_len"]) == f"{config}:2 (hides preset local.yaml:{where['max_len']} = 1024)"
    assert str(args.sources["plot_every"]) == f"preset local.yaml:{where['plot_every']}"
    assert args.logging.plot_every == 5 and not args.typed("plot_every") and args.typed("max_len")
    assert str(args.sources["mode"]) == f"{config}:1" and args.run.mode == "local"


NAMES = ("rollout_batch_size", "max_len", "plot_every")


def test_a_preset_hides_an_estimator(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("lightrft.args.presets.FOLDER", tmp_path)
    (tmp_path / "mine.yaml").write_text("clip_range: 0.25\n")
    args = parse(f"{FEW} --mode mine --advantage_estimator gspo --rollout_batch_size 4 --train_batch_size 16".split())
    assert str(args.sources["clip_range"]) == "preset mine.yaml:1 (hides default:gspo = 0.0003)"
    assert args.algorithm.clip_range == 0.25 and args.algorithm.clip_range_higher == 4e-4


def test_a_preset_is_named_where_its_value_is_blamed():
    args = parse(f"{FEW} --mode local --max_new_tokens 600".split())
    assert refusal(check, args) == [
        "--max_new_tokens 600 does not fit into --max_len 1024 - --prompt_max_len 512 = 512; use --max_new_tokens 512 "
        "or --max_len 1112 (from --mode local: --max_len 1024, --prompt_max_len 512)"
    ]
    with pytest.raises(Refused) as stopped, presets_named(args):
        raise Refused("--prompt_max_len 512 + --max_new_tokens 600 = 1112\nand --max_len 600")
    assert str(stopped.value).splitlines() == [
        "--prompt_max_len 512 + --max_new_tokens 600 = 1112 (from --mode local: --prompt_max_len 512)",
        "and --max_len 600",
    ]
