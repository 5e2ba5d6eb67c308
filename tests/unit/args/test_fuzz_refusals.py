"""Of command lines drawn at random, those that are refused: a line says where, and what would work, and that works."""

from __future__ import annotations

import re
from collections import Counter
from random import Random

from fuzz_advice import OLDER, shape, ways_out
from fuzz_cases import Piece, argv, base, in_one_way
from fuzz_results import Result, outcome, shown

from lightrft.args import command_line
from lightrft.args.settings import Problem
from lightrft.args.surface import FLAGS

PLACE = re.compile(r"-{1,3}\w|-- |'|\S+\.yaml:\d+: |there is no reward: |[\w.]+=")  # a flag, a word, file and line
REMEDY = re.compile(
    r"\b(use|give|must be|nearest|choices|remove|write|needs|takes|works|is required|leave it out)\b|--help lists"
    r"|is exactly on-policy|as with --"
)


def test_every_line_names_a_place_and_a_remedy(refused: list[Result]):
    lines = [(result, line) for result in refused for line in result.lines]
    wrong = [(result, line) for result, line in lines if not (PLACE.match(line) and REMEDY.search(line))]
    assert not wrong, shown(wrong)


def test_the_nearest_name_is_a_name(refused: list[Result]):
    known = {name for flag in FLAGS.values() for name in (*flag.names, *map(str, flag.record.allowed() or ()))}
    found = [(r, re.search(r"; nearest: (\S+)(?: or --\w+)*$", line)) for r in refused for line in r.lines]
    wrong = [(r, match[1]) for r, match in found if match and re.sub("^--(no-)?", "", match[1]) not in known]
    assert not wrong, shown(wrong)


def test_what_a_line_proposes_mends_it(refused: list[Result]):
    """Each way out of each line ends that line, and with one after the other the command line is accepted."""
    wrong, ways = [], Counter()
    for result in refused:
        for line in result.lines:
            for pieces in ways_out(line, result.pieces):
                ways[shape(in_one_way(line))] += 1
                if shape(line) in map(shape, outcome(argv(pieces))[1]):
                    wrong.append((result, f"{line}\n    is not mended by: {' '.join(argv(pieces))}"))
        wrong += [(result, f"never accepted: {line}") for line in _left(result)]
    assert not wrong, shown(wrong)
    assert len(ways) > 100


def _left(result: Result) -> list[str]:
    """The lines that are left when advice is followed one line at a time, chosen by lot."""
    random, pieces, (args, lines) = Random(result.seed), result.pieces, (result.args, result.lines)
    for _ in range(40):
        if args is not None:
            return []
        pieces = random.choice(list(ways_out(random.choice(lines), pieces)))
        args, lines = outcome(argv(pieces))
    return lines


def test_every_fault_of_a_flag_has_its_line_and_no_rule_rests_on_one(refused: list[Result]):
    """A rule's line is there without the faulty flags too: what is broken is not blamed twice."""
    wrong = []
    for result in refused:
        own = {id(entry): _own_lines(entry) for entry in result.pieces}
        due = [line for lines in own.values() for line in lines]
        wrong += [(result, f"no line: {line}") for line in due if line not in result.lines]
        sound = [entry for entry in result.pieces if not own[id(entry)]]
        required = [entry for entry in base() if FLAGS[entry.flag].record.required]
        missing = [entry for entry in required if entry.flag not in {entry.flag for entry in sound}]
        due += [line for line in result.lines if line.endswith(("is required", "two values; remove one"))]
        extra = set(result.lines) - {*due, *outcome(argv([*sound, *missing]))[1]}
        of_pairs = bool({entry.flag for entry in result.pieces} & OLDER.keys())  # an older switch may be half broken
        wrong += [(result, f"more: {line}") for line in extra if not of_pairs]
    assert not wrong, shown(wrong)


def _own_lines(entry: Piece) -> list[str]:
    """What is wrong with these words whatever stands beside them."""
    return [str(found) for found in command_line.read_command_line(list(entry.words)) if isinstance(found, Problem)]
