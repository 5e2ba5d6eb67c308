"""2,000 command lines with their YAML files, each built from a good one by mutations of known kinds.

What must come of each is known from an oracle of its own (fuzz_oracle.py): every value with its source, or the flags
and lines that the refusal has to name, one line for each fault and none beside them. The lines themselves have to say
where and what would work; and what they propose has to work.
"""

from __future__ import annotations

import re
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from command_lines import broken_rules
from fuzz import MUTATIONS, build
from fuzz_notices import told
from fuzz_oracle import Expected
from fuzz_surface import fields

from lightrft.args import Args, check, command_line, parse
from lightrft.errors import Refused

CASES = 2000
PLACE = re.compile(r"(?<!\w)-{1,3}\w|^-- |^'|\.yaml:\d+: |^--config ")  # a flag, a stray word, or file and line
REMEDY = re.compile(
    r"\b(use|give|must be|nearest|choices|remove|write|needs|takes|choose|put it|works|start|but under|is required"
    r"|recommended range|leave it out)\b|--help lists"
)
PROPOSED = re.compile(r"(--\w+) (\d+)(?: or (\d+))?")
NEAREST = re.compile(r"; nearest: (\S+)$")
STRICT = re.compile(r" \(refused under --strict_args[^)]*\)$")


@dataclass(frozen=True)
class Result:
    seed: int
    kinds: list[str]
    argv: list[str]
    files: dict[str, bytes]
    expected: Expected
    found: Args | list[str] | str  # arguments, lines of a refusal, or a traceback

    @property
    def lines(self) -> list[str]:
        return self.found if isinstance(self.found, list) else []

    def told(self, wrong: str) -> str:
        """Everything that is needed to see what happened."""
        files = [f"  {path.rpartition('/')[2]}: {content[:400]!r}" for path, content in self.files.items()]
        shown = self.lines or [str(self.found)[-600:]]
        return "\n".join([f"seed {self.seed} {self.kinds}", f"  {self.argv}", *files, f"  WRONG: {wrong}", *shown, ""])


KEPT: list[Result] = []
PARSER = cache(command_line.build_parser)  # it keeps nothing of what it read, and takes half the time to build


@pytest.fixture(autouse=True)
def _one_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_line, "build_parser", PARSER)


@pytest.fixture
def results(tmp_path: Path) -> list[Result]:
    """All cases, run once for all tests; their files stay, for what is run again."""
    if not KEPT:
        KEPT.extend(_result(seed, tmp_path / str(seed)) for seed in range(CASES))
    return KEPT


def _result(seed: int, folder: Path) -> Result:
    folder.mkdir()
    case, kinds = build(seed, folder)
    argv, expected = case.finish()
    files = {str(file.path): file.path.read_bytes() for file in case.files}
    try:
        found: Args | list[str] | str = outcome(argv)
    except Exception:
        found = traceback.format_exc()
    return Result(seed, kinds, argv, files, expected, found)


def outcome(argv: list[str], *, strict: bool = False) -> Args | list[str]:
    """The arguments, or the lines of the refusal."""
    try:
        args = parse(argv)
        check(args, strict=strict)
    except Refused as refusal:
        return str(refusal).split("\n")
    return args


def complaints(result: Result) -> list[str]:
    """Where the outcome is not what it must be."""
    faults, found = result.expected.faults, result.found
    if isinstance(found, str):
        return ["an exception that is no refusal"]
    if isinstance(found, Args):
        return [f"accepted, and should name {fault.mark}" for fault in faults] or _wrong_values(found, result.expected)
    return _wrong_lines([line for line in found if not STRICT.search(line)], result.expected)


def _wrong_lines(lines: list[str], expected: Expected) -> list[str]:
    faults = expected.faults
    sure = sum(fault.sure for fault in faults)
    wrong = [f"no line names {f.mark}" for f in faults if f.sure and not any(f.is_named_by(line) for line in lines)]
    wrong += [f"nothing is wrong there: {line}" for line in lines if not any(f.is_named_by(line) for f in faults)]
    if not wrong and not sure <= len(lines) <= len(faults):
        wrong.append(f"{len(lines)} lines for {len(faults)} faults")
    return wrong


def _wrong_values(args: Args, expected: Expected) -> list[str]:
    wrong = []
    for name, value in expected.values.items():
        layers, source = expected.layers[name], args.sources[name]
        found = args.value(name)
        seen = (found, type(found), source.where, source.typed)
        due = (value, type(value), layers[-1].where if layers else "default", bool(layers) and layers[-1].typed)
        wrong += [f"--{name} is {seen}, not {due}"] if seen != due else []
        hidden = [(entry.where, entry.value) for entry in reversed(layers[:-1])]
        if [(entry.where, entry.value) for entry in source.hides] != hidden:
            wrong.append(f"--{name} hides {source.hides}, not {hidden}")
    return wrong


def examples(wrong: list[tuple[Result, str]]) -> str:
    """One example of each kind; the kind is the text without its numbers, names and paths."""
    kinds: dict[str, list[tuple[Result, str]]] = {}
    for result, text in wrong:
        kind = re.sub(r"\S*[/]\S+ \w+|\S*[/]\S+|--\w+|\d+|'[^']*'", "…", text)
        kinds.setdefault(kind, []).append((result, text))
    shown = [f"{len(found)} like this:\n{found[0][0].told(found[0][1])}" for found in kinds.values()]
    return f"{len(wrong)} of {len(kinds)} kinds\n" + "\n".join(shown)


def test_the_outcome_is_the_expected_one(results: list[Result]):
    wrong = [(result, text) for result in results for text in complaints(result)]
    assert not wrong, examples(wrong)


def test_every_line_names_a_place(results: list[Result]):
    wrong = [(result, line) for result in results for line in result.lines if not PLACE.search(line)]
    assert not wrong, examples(wrong)


def test_every_line_has_a_remedy(results: list[Result]):
    wrong = [(result, line) for result in results for line in result.lines if not REMEDY.search(line)]
    assert not wrong, examples(wrong)


def test_the_nearest_name_is_a_name(results: list[Result]):
    """Of a flag as it would be typed there, of a key, or of a choice."""
    known = {choice for entry in fields().values() for choice in map(str, entry.choices)}
    known |= {name for entry in fields().values() for name in (*entry.options, *entry.names)}
    found = [(result, line, NEAREST.search(line)) for result in results for line in result.lines]
    wrong = [(result, line) for result, line, match in found if match and match[1] not in known]
    assert not wrong, examples(wrong)


def test_a_proposed_number_mends_its_fault(results: list[Result]):
    """Typed last it wins, and then no line begins as that one did."""
    proposals = [
        (result, line, flag, number)
        for result in results
        for line in result.lines
        for flag, *numbers in PROPOSED.findall(line.rpartition(";")[2] if ";" in line else "")
        for number in filter(None, numbers)
        if line.startswith(f"{flag} ")
    ]
    wrong = []
    for result, line, flag, number in proposals:
        found = outcome([*result.argv, flag, number])
        if isinstance(found, list) and any(other.startswith(f"{flag} {number} ") for other in found):
            wrong.append((result, f"{flag} {number} does not mend: {line}"))
    assert len(proposals) > CASES / 100 and not wrong, examples(wrong)


def test_notices_are_what_strictness_refuses(results: list[Result]):
    found = [(result, check(result.found)) for result in results if isinstance(result.found, Args)]
    wrong = []
    for result, notices in found:
        strict = outcome(result.argv, strict=True)
        lines = [] if isinstance(strict, Args) else strict
        if [STRICT.sub("", line) for line in lines] != [str(notice) for notice in notices]:
            wrong.append((result, f"{lines} for {notices}"))
    assert sum(bool(notices) for _, notices in found) > CASES / 20 and not wrong, examples(wrong)


def test_the_notices_are_the_expected_ones(results: list[Result]):
    wrong, seen = [], Counter()
    for result in results:
        if isinstance(result.found, Args):
            found, expected = told(map(str, check(result.found))), result.expected.notices()
            seen += expected
            wrong += [(result, f"no notice: {flag} is {sort}") for flag, sort in sorted(expected - found)]
            wrong += [(result, f"a notice too many: {flag} is {sort}") for flag, sort in sorted(found - expected)]
    assert len(seen) > 40 and not wrong, f"{len(seen)} sorts; {examples(wrong)}"


def test_the_cases_are_of_all_kinds(results: list[Result]):
    """Enough of both verdicts, every mutation often, and (nearly) every flag that is built accepted somewhere."""
    accepted = [result for result in results if isinstance(result.found, Args)]
    assert CASES / 5 < len(accepted) < 4 * CASES / 5
    kinds = Counter(kind for result in results for kind in result.kinds)
    assert min(kinds[kind] for kind in MUTATIONS) > CASES / 100
    taken = {name for r in accepted for name, layers in r.expected.layers.items() if any(good.typed for good in layers)}
    assert len({entry.name for entry in fields().values() if not entry.unbuilt} - taken) <= 2


@pytest.mark.parametrize("sizes", ("--train_batch_size 100000000", "--rollout_batch_size 24999997"))
def test_huge_sizes_are_answered_at_once(sizes: str):
    """What would work is worked out, not searched for one by one."""
    start = time.process_time()
    lines = broken_rules(f"{sizes} --micro_train_batch_size 3")
    assert time.process_time() - start < 1
    assert lines and all("nearest: --train_batch_size" in line for line in lines)
