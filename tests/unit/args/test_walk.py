"""Every flag of the surface: from the command line and from YAML, with its source; wrong values; what is not built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command_lines import REQUIRED, broken_rules, from_yaml, refusal, refused

from lightrft.args import Args, parse
from lightrft.args.surface import FLAGS, Flag
from lightrft.args.unbuilt import UNBUILT

WITHOUT_CHOICE = {int: "7", float: "0.375", str: "a.b/c"}
WRONG = {int: "7.5", float: "1_0"}
ALL = pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
VALUED = pytest.mark.parametrize(  # a file for --config has to exist: test_yaml.py
    "flag",
    [pytest.param(flag, id=flag.name) for flag in FLAGS.values() if not flag.is_switch and flag.name != "config"],
)
SWITCHES = pytest.mark.parametrize(
    "flag", [pytest.param(flag, id=flag.name) for flag in FLAGS.values() if flag.is_switch]
)


def legal_word(flag: Flag) -> str:
    """A legal value that is not the default."""
    record = flag.record
    choices = [str(choice) for choice in record.allowed() or () if choice != record.default]
    if choices:
        return choices[-1]
    if flag.kind.of is float and not record._inside(0.375):
        return "3.5"
    if flag.kind.of is int and not record._inside(7):
        return "3"
    return WITHOUT_CHOICE[flag.kind.of]


def legal(flag: Flag) -> tuple[list[str], Any]:
    """Words for the command line, and the value that they mean."""
    word = legal_word(flag)
    value = word if flag.kind.of is str else flag.kind.of(word)
    if flag.kind.shape == "pairs":
        return [f"name={word}"], {"name": value}
    if flag.kind.shape == "list":
        count = flag.kind.count or 2
        return [word] * count, (value,) * count
    return [word], value


def in_yaml(flag: Flag, words: list[str]) -> str:
    quoted = [f"'{word}'" if flag.kind.of is str or flag.kind.shape == "pairs" else word for word in words]
    return quoted[0] if flag.kind.shape == "one" else f"[{', '.join(quoted)}]"


def full(*words: str) -> Args:
    return parse([*REQUIRED.split(), "--reward_fn", "last_number", *words])


@VALUED
def test_on_the_command_line(flag: Flag):
    words, value = legal(flag)
    for name in flag.names:
        args = full(f"--{name}", *words)
        assert args.value(flag.name) == value != flag.record.default
        assert args.sources[flag.name].where == "cli" and args.typed(flag.name)
    if len(words) == 1:
        assert full(f"--{flag.name}={words[0]}").value(flag.name) == value


@VALUED
def test_in_yaml(flag: Flag, tmp_path: Path):
    words, value = legal(flag)
    for text, line in (
        (f"\n{flag.name}: {in_yaml(flag, words)}\n", 2),
        (f"{flag.group}:\n\n  {flag.name}: {in_yaml(flag, words)}\n", 3),
    ):
        (tmp_path / "run.yaml").write_text(text)
        required = [word for word in REQUIRED.split(" --") if word.split()[0].removeprefix("--") != flag.name]
        argv = f"--{' --'.join(word.removeprefix('--') for word in required)} --config {tmp_path}/run.yaml".split()
        args = parse(argv)
        assert args.value(flag.name) == value
        assert args.sources[flag.name].where == f"{tmp_path}/run.yaml:{line}"


@SWITCHES
def test_switches(flag: Flag, tmp_path: Path):
    for name in (flag.name, *flag.record.aliases):
        assert full(f"--{name}").value(flag.name) is True
        assert full(f"--no-{name}").value(flag.name) is False
        assert full(f"--{name}", f"--no-{name}").value(flag.name) is False
    for word in ("true", "false"):
        args = from_yaml(tmp_path, f"{flag.name}: {word}\n")
        assert args.value(flag.name) is (word == "true") and args.sources[flag.name].where.endswith("run.yaml:1")
    assert refused(f"--{flag.name} yes") == [
        f"--{flag.name} takes no value, got 'yes'; write --{flag.name} or --no-{flag.name}"
    ]


def test_the_name_that_says_the_opposite(tmp_path: Path):
    assert full("--disable_engine_sleep").engine.enable_engine_sleep is False
    assert full("--no-disable_engine_sleep").engine.enable_engine_sleep is True
    assert full("--enable_engine_sleep", "--disable_engine_sleep").engine.enable_engine_sleep is False
    assert from_yaml(tmp_path, "disable_engine_sleep: true\n").engine.enable_engine_sleep is False
    assert from_yaml(tmp_path, "disable_engine_sleep: false\n").engine.enable_engine_sleep is True


@VALUED
def test_wrong_types_and_counts(flag: Flag):
    words, _ = legal(flag)
    if flag.record.nargs != "?":
        (line,) = refusal(full, f"--{flag.name}")
        assert line.startswith(f"--{flag.name} takes ")
    if flag.kind.shape == "one":
        (line,) = refusal(full, f"--{flag.name}", *words, "surplus")
        assert line == f"--{flag.name} takes one value, and 'surplus' belongs to no flag"
    if flag.kind.of in WRONG and flag.kind.shape != "pairs":
        wrong = WRONG[flag.kind.of]
        (line,) = refusal(full, f"--{flag.name}", *[wrong] * len(words))
        assert line.startswith(f"--{flag.name} must be a") and line.endswith(f"got '{wrong}'")


@ALL
def test_defaults_have_their_source_and_are_never_refused(flag: Flag):
    args = full()
    if flag.name in ("pretrain", "prompt_data", "save_path", "rollout_batch_size", "train_batch_size", "reward_fn"):
        assert args.sources[flag.name].where == "cli"
    else:
        assert args.sources[flag.name].where == "default" and not args.typed(flag.name)
        assert args.value(flag.name) == flag.record.default or flag.record.derive is not None


@pytest.mark.parametrize("name", UNBUILT)
def test_what_is_not_built_is_refused_when_it_is_set(name: str):
    witness = FLAGS[name].record.witness
    assert witness is not None
    lines = broken_rules(witness.change)
    assert f"--{name} is not built yet ({UNBUILT[name]}); remove it" in lines
    if FLAGS[name].is_switch:
        assert broken_rules(f"--no-{name}") == [f"--{name} is not built yet ({UNBUILT[name]}); remove it"]
