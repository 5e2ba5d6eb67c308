"""Older switches mean exactly one estimator or bound, or are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_lines import from_yaml, parsed, refused


def test_one_clip_for_both_sides():
    args = parsed("--eps_clip 0.15")
    assert (args.algorithm.clip_range, args.algorithm.clip_range_higher) == (0.15, 0.15)
    assert str(args.sources["clip_range"]) == "cli, --eps_clip"
    assert parsed("--eps_clip 0.15 --clip_range 0.15").algorithm.clip_range_higher == 0.15


def test_the_lower_clip_has_another_name():
    assert parsed("--clip_range_lower 0.15").algorithm.clip_range == 0.15
    assert parsed("--normalize_advantages").rewards.advantages_norm is True


def test_without_clip_higher_both_sides_are_equal():
    assert parsed("--no-use_clip_higher").algorithm.clip_range_higher == 0.2
    assert parsed("--no-use_clip_higher --clip_range 0.1").algorithm.clip_range_higher == 0.1
    assert parsed("--no-use_clip_higher --advantage_estimator gspo").algorithm.clip_range_higher == 3e-4
    assert parsed("--use_clip_higher").algorithm.clip_range_higher == 0.3


def test_names_of_others_for_our_estimators():
    assert parsed("--advantage_estimator grpo").algorithm.advantage_estimator == "group_norm"
    assert parsed("--advantage_estimator reinforce_plus_plus").algorithm.advantage_estimator == "reinforce"
    assert parsed("--kl_estimator low_var_kl").algorithm.kl_estimator == "k3"


def test_switches_of_estimators(tmp_path: Path):
    args = parsed("--use_gspo")
    assert args.algorithm.advantage_estimator == "gspo" and args.algorithm.clip_range == 3e-4
    assert parsed("--use_gspo --advantage_estimator gspo").algorithm.advantage_estimator == "gspo"
    assert parsed("--no-use_gspo").algorithm.advantage_estimator == "group_norm"
    assert from_yaml(tmp_path, "use_gspo: true\n").algorithm.advantage_estimator == "gspo"


@pytest.mark.parametrize(
    "text, line",
    [
        (
            "--use_gspo --advantage_estimator reinforce",
            "--advantage_estimator reinforce (cli) contradicts gspo (cli, --use_gspo); remove one",
        ),
        ("--eps_clip 0.1 --clip_range 0.2", "--clip_range 0.2 (cli) contradicts 0.1 (cli, --eps_clip); remove one"),
        (
            "--eps_clip 0.1 --clip_range_higher 0.2",
            "--clip_range_higher 0.2 (cli) contradicts 0.1 (cli, --eps_clip); remove one",
        ),
        (
            "--no-use_clip_higher --clip_range_higher 0.25",
            "--clip_range_higher 0.25 (cli) contradicts 0.2 (cli, --use_clip_higher); remove one",
        ),
        (
            "--no-use_gspo --advantage_estimator gspo",
            "--no-use_gspo contradicts --advantage_estimator gspo; remove one",
        ),
    ],
)
def test_contradictions(text: str, line: str):
    assert refused(text) == [line]
