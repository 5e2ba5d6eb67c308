"""What must hold between flags: rules.txt has a command line for each rule, broken and kept, with all that is told."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command_lines import BASE, broken_rules, notices, parsed, refusal, refused

from lightrft.args import check, parse
from lightrft.args.rules import SUBJECTS
from lightrft.args.surface import FLAGS
from lightrft.errors import Refused

TEXT = Path(__file__).with_name("rules.txt").read_text()
BLOCKS = [block for block in TEXT.replace("\n    ", "\t").splitlines() if block.startswith("--")]
CASES = [tuple(f"{block}\t".split("\t")[:2]) for block in BLOCKS]


@pytest.mark.parametrize(("text", "told"), CASES)
def test_what_the_rules_say(text: str, told: str):
    """A notice is a problem under --strict_args, in the same words."""
    verdict, _, line = told.partition(": ")
    if verdict == "refused":
        assert broken_rules(text) == [line]
    else:
        assert notices(text) == ([line] if line else [])
    if verdict == "noticed":
        strict = f"{line} (refused under --strict_args; remove it, or --strict_args)"
        assert broken_rules(f"{text} --strict_args") == [strict]


REFUSED = [(text, told.partition(": ")[2]) for text, told in CASES if told.startswith("refused")]
BROKEN = [(text, line, name) for text, line in REFUSED for name in re.findall(r"--(?:no-)?(\w+)", text)]


@pytest.mark.parametrize(("text", "line", "name"), BROKEN)
def test_a_rule_is_silent_where_a_flag_that_it_rests_on_is_broken(text: str, line: str, name: str):
    """One that says something else without the flag, or nothing."""
    others = " ".join(part for part in re.split(r" (?=--)", text) if not re.match(rf"--(no-)?{name}\b", part))
    kept = [other for other in _told(others) if other == line]
    faulty = f"--{name} a b" if FLAGS[name].kind.shape == "one" else f"--{name}"
    fault, *rest = refused(f"{others} {faulty}")
    assert fault.startswith(f"--{name} takes ") and rest == kept


def _told(text: str) -> list[str]:
    try:
        return [str(notice) for notice in check(parsed(text))]
    except Refused as refusal:
        return str(refusal).splitlines()


def test_every_subject_has_its_cases():
    assert [subject.__name__.rpartition(".")[2] in TEXT for subject in SUBJECTS] == [True] * len(SUBJECTS)
    assert len(CASES) > 100 and notices() == []


def test_the_base_has_nothing_to_say_under_strictness_either():
    assert check(parsed("--strict_args"), strict=True) == []


@pytest.mark.parametrize("name", ["", ".score"])
def test_a_value_head_is_one_module(name: str):
    args = parsed("--advantage_estimator gae").with_(value_head_prefix=name)
    (line,) = refusal(check, args)
    assert line.startswith(f"--value_head_prefix {name or repr(name)} is not the name of one module")


def test_reward_sources():
    no_reward = parsed().with_(reward_fn=())
    (line,) = refusal(check, no_reward)
    assert line.startswith("there is no reward: give --reward_fn ")
    assert all(way in line for way in ("--reward_pretrain", "--remote_rm_url", "--prompt_data reasoning_gym:<task>"))
    check(no_reward.with_(prompt_data=("reasoning_gym:chain_sum",)))
    for other in ("reward_pretrain", "remote_rm_url"):
        assert refusal(check, no_reward.with_(**{other: ("x",)})) == [
            f"--{other} is not built yet (rewards); remove it"
        ]


def test_all_broken_rules_together():
    assert len(broken_rules("--top_k 0 --fp16 --fsdp --train_batch_size 12 --eval_n_samples 2")) == 4


def test_what_cannot_matter_is_told_before_what_is_unusual():
    vain, unusual = notices("--actor_learning_rate 1e-3 --gamma 0.5")
    assert "cannot matter" in vain and "outside" in unusual


def test_a_default_is_no_reason_for_a_notice():
    unusual = {"actor_learning_rate": 1e-3, "zero_stage": 3, "fsdp": True}
    assert check(parse(BASE.split(), unusual)) == []


def test_no_default_is_outside_its_own_recommended_range():
    """Typed as it stands, nor what the quickstart, the example and GRPO's paper use."""
    for flag in FLAGS.values():
        if flag.record.recommended and not flag.record.required and not flag.record.unbuilt:
            told = notices(f"--{flag.name} {flag.record.default or flag.record.recommended[0]}")
            assert not [line for line in told if "outside" in line], flag.name
    for usual in ("actor_learning_rate 1e-5", "actor_learning_rate 1.5e-4", "init_kl_coef 0.04", "num_episodes 1"):
        assert notices(f"--{usual}") == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("--zpg 2", "--zpg 2 needs stage 3 of DeepSpeed ZeRO; use --zero_stage 3, or remove it"),
        ("--zpg 2 --fsdp", "--zpg 2 needs stage 3 of DeepSpeed ZeRO; use --no-fsdp --zero_stage 3, or remove it"),
        ("--zpg 3 --zero_stage 3", "--zpg 3 does not divide 4 processes; use --zpg 2 or 4"),
        ("--ref_shard_size 3", "--ref_shard_size 3 does not divide 4 processes; use --ref_shard_size 2 or 4"),
        ("--hybrid_shard_size 2", "--hybrid_shard_size 2 needs --fsdp; add --fsdp or remove it"),
    ],
)
def test_what_four_processes_cannot_do(text: str, line: str):
    assert broken_rules(text, 4) == [line]


@pytest.mark.parametrize("text", ["--zpg 2", "--zpg 4", "--overlap_comm", "--dist_timeout_s 60", "--ref_shard_size 2"])
def test_what_four_processes_can_do(text: str):
    told = [str(notice) for notice in check(parsed(f"--zero_stage 3 {text}"), 4)]
    same = ["--zpg 4 cannot matter: all 4 processes would share the second copy as they do the first"]
    assert told == (same if text == "--zpg 4" else [])
