"""Command lines drawn at random, and what holds of every one of them whatever the rules are.

Nothing here knows a rule. An accepted one must be inside all bounds, what is noticed must be so, and nothing may depend
on how the same thing is written. What a refusal says is looked at in test_fuzz_refusals.py.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import yaml
from fuzz_advice import OLDER, STRICT, put
from fuzz_cases import argv, in_one_way, otherwise, piece
from fuzz_results import CASES, Result, outcome, shown

from lightrft.args import Args
from lightrft.args.effective import effective
from lightrft.args.field import items_of
from lightrft.args.show import as_dict
from lightrft.args.surface import FLAGS, NAMES
from lightrft.args.unbuilt import UNBUILT

GIVEN_AGAIN = re.compile(r" comes later and counts\b")


def test_both_verdicts_are_frequent_and_every_flag_is_drawn(results: list[Result], refused: list[Result]):
    assert CASES / 5 < len(refused) < 4 * CASES / 5
    drawn = {entry.flag for result in results for entry in result.pieces}
    assert len(FLAGS.keys() - drawn) <= 2 + len({"config", "print_args"})
    assert sum(bool(result.lines) for result in results if result.args) > CASES / 10


def test_it_does_not_matter_how_the_same_is_written(results: list[Result], tmp_path: Path):
    """Order, other names of a flag, command line or file, flat or nested."""
    wrong = []
    for result in results:
        words = otherwise(Random(result.seed), result.pieces, tmp_path / "other.yaml")
        args, lines = outcome(words)
        if sorted(map(in_one_way, lines)) != sorted(map(in_one_way, result.lines)):
            wrong.append((result, f"{words}\n    {lines}\n    {result.lines}"))
        elif args is not None and result.args is not None:
            different = [name for name in FLAGS if name != "config" and args.value(name) != result.args.value(name)]
            wrong += [(result, f"{words}: other values of {different}")] if different else []
            wrong += [(result, where) for where in _wrong_sources(args)]
    assert not wrong, shown(wrong)


def _wrong_sources(args: Args) -> Iterator[str]:
    """A value's line in a file has to hold its flag."""
    for name, source in args.sources.items():
        path, _, line = source.where.partition(", ")[0].rpartition(":")
        if path.endswith("other.yaml"):
            text = Path(path).read_text().split("\n")[int(line) - 1].strip()
            key = text.partition(":")[0]
            if NAMES[key] != (name if ", --" not in source.where else source.where.rpartition("--")[2]):
                yield f"--{name} is said to come from {source.where}: {text}"


def test_what_is_shown_can_be_read_again(accepted: list[tuple[Result, Args]], tmp_path: Path):
    """--print_args json, as a file of YAML, is the same run: values, what they come to, and what is said of them."""
    wrong, file = [], tmp_path / "again.yaml"
    for result, args in accepted:
        typed = [name for name in FLAGS if args.typed(name) and ", --" not in args.sources[name].where]
        file.write_text(yaml.safe_dump({name: as_dict(args)[name]["value"] for name in typed}))
        again, notices = outcome(["--config", str(file)])
        lines = [line for line in result.lines if not GIVEN_AGAIN.search(line)]  # which a file cannot say twice
        if again is None or notices != lines:
            wrong.append((result, f"{notices} for {lines}"))
        else:
            seen = [name for name in FLAGS if effective(again, name)[0] != effective(args, name)[0]]
            wrong += [(result, f"other values of {seen}")] if set(seen) - {"config"} else []
    assert not wrong, shown(wrong)


def test_what_is_accepted_is_inside_its_bounds(accepted: list[tuple[Result, Args]]):
    """By itself, and where batch sizes and lengths have to fit each other."""
    wrong = []
    for result, args in accepted:
        batch, model = args.batch, args.model
        rollout, train = batch.rollout_batch_size * args.algorithm.n_samples_per_prompt, batch.train_batch_size
        fits = max(rollout, train) % min(rollout, train) == 0 == train % batch.micro_train_batch_size
        length = model.prompt_max_len + model.max_new_tokens
        wrong += [] if fits and length <= model.max_len else [(result, f"{rollout}, {train}; {length} tokens")]
        outside = [name for name in FLAGS if not _is_inside(name, args.value(name))]
        wrong += [(result, f"--{name}") for name in [*outside, *filter(args.typed, UNBUILT)]]
    assert not wrong, shown(wrong)


def _is_inside(name: str, value: object) -> bool:
    record, kind = FLAGS[name].record, FLAGS[name].kind
    if value is None:
        return kind.optional
    allowed = record.allowed() or items_of(value)
    limits = ((operator.ge, record.ge), (operator.gt, record.gt), (operator.le, record.le), (operator.lt, record.lt))
    return all(
        type(entry) is kind.of
        and entry in allowed
        and all(holds(entry, limit) for holds, limit in limits if limit is not None)
        for entry in items_of(value)
    )


def test_notices_are_what_strictness_refuses(accepted: list[tuple[Result, Args]]):
    wrong = []
    for result, _ in accepted:
        args, lines = outcome(argv(put(result.pieces, piece(FLAGS["strict_args"], "true"))))
        if [STRICT.sub("", line) for line in lines] != result.lines or (args is None) != bool(result.lines):
            wrong.append((result, f"{lines} for {result.lines}"))
    assert not wrong, shown(wrong)


def test_no_advice_is_given_on_what_cannot_matter(results: list[Result]):
    wrong = []
    for result in results:
        _, lines = outcome(argv(put(result.pieces, piece(FLAGS["strict_args"], "true"))))
        vain = re.findall(r"^--(?:no-)?(\w+)[^:\n]* cannot matter", "\n".join(lines), re.MULTILINE)
        advice = [line for line in lines for name in vain if re.match(rf"--(no-)?{name}\b.* use --", line)]
        wrong += [(result, line) for line in advice if not {entry.flag for entry in result.pieces} & OLDER.keys()]
    assert not wrong, shown(wrong)


def test_notices_are_of_what_was_typed(accepted: list[tuple[Result, Args]]):
    """Taking out a flag that cannot matter changes no other value, and ends what is said of it."""
    wrong = []
    for result, args in accepted:
        older = {entry.flag for entry in result.pieces} & OLDER.keys()
        for line in result.lines:
            flag, *others = [NAMES[name] for name in re.findall(r"--(?:no-)?(\w+)", line)]
            wrong += [] if any(map(args.typed, (flag, *others))) else [(result, f"typed by nobody: {line}")]
            if " cannot matter" in line and not older:
                less, lines = outcome(argv([entry for entry in result.pieces if entry.flag != flag]))
                same = less and all(less.value(name) == args.value(name) for name in FLAGS if name != flag)
                ended = not [other for other in lines if other.startswith(f"--{flag} ")]
                wrong += [] if same and ended else [(result, f"without what does nothing, {line}: {lines}")]
    assert not wrong, shown(wrong)


MEANT = {
    "use_gspo": (["--use_gspo"], ["--advantage_estimator", "gspo"]),
    "use_cpg_loss": (["--use_cpg_loss"], ["--advantage_estimator", "cpgd"]),
    "eps_clip": (["--eps_clip", "0.15"], ["--clip_range", "0.15", "--clip_range_higher", "0.15"]),
    "use_clip_higher": (
        ["--clip_range", "0.25", "--no-use_clip_higher"],
        ["--clip_range", "0.25", "--clip_range_higher", "0.25"],
    ),
}


@pytest.mark.parametrize("name", MEANT)
def test_an_older_switch_is_what_it_means(name: str, results: list[Result]):
    wrong, taken = [], {*MEANT, "advantage_estimator", "clip_range", "clip_range_higher"}
    for result in results[:: len(MEANT)]:
        words = argv([entry for entry in result.pieces if entry.flag not in taken])
        (older, told), (newer, said) = (outcome([*words, *more]) for more in MEANT[name])
        told = [line for line in told if not re.match(rf"--(no-)?{name}\b", line)]
        both = older and newer
        other = [flag for flag in FLAGS.keys() - {name} if both and older.value(flag) != newer.value(flag)]
        wrong += [] if not other and told == said else [(result, f"{told} for {said}, other values of {other}")]
    assert not wrong, shown(wrong)
