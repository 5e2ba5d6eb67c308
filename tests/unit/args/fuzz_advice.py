"""What a line of a refusal proposes, read as a user reads it, and done."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from fuzz_cases import Piece, base, good, piece

from lightrft.args.surface import FLAGS, NAMES

STRICT = re.compile(r" \(refused under --strict_args[^)]*\)$")
ASIDE = re.compile(r" \((?:from --mode|a rule or|a reward|off)[^)]*\)")
BOUND = re.compile(r"(>=|>|<=|<) (\S+)")
REWARDS = {"reward_fn": "last_number", "prompt_data": "reasoning_gym:x"}
SETTING = re.compile(r"--(no-)?(\w+)(?: (?!--)(?:more than )?([\w.+-]+))?")
WRONG = re.compile(r"\b(takes (one|at|no|name|\d+ values)|must be|is empty)\b")
CLAUSE = re.compile(r"; |\bneeds (?:at least )?|give ")
NAMED = re.compile(r"--(?:no-)?(\w+)")
OLDER = {
    "eps_clip": {"clip_range", "clip_range_higher"},
    "use_clip_higher": {"clip_range_higher"},
    "use_gspo": {"advantage_estimator"},
    "use_cpg_loss": {"advantage_estimator"},
}
NUMBER = re.compile(r"(more than )?(-?\d[\w.+-]*)$")


def shape(line: str) -> str:
    """A line without its numbers and texts."""
    return re.sub(r"'[^']*'|-?\b\d[\w.+-]*", "#", STRICT.sub("", line))


def ways_out(line: str, pieces: list[Piece]) -> Iterator[list[Piece]]:
    """The pieces of the command line after each of the things that the line proposes."""
    text = ASIDE.sub("", STRICT.sub("", line))
    match = re.match(r"--(?:no-)?(\w+)", text)
    subject = NAMES.get(match[1], "") if match else ""
    others = without(pieces, subject)
    if "is not a flag" in text or not (subject or text.startswith("there is no reward")):
        yield [entry for entry in pieces if entry.flag or entry.words[0].partition("=")[0] not in text]
    elif text.endswith("is required"):
        yield [*pieces, *(entry for entry in base() if entry.flag == subject)]
    elif "one flag with two values" in text:
        yield [*others, [entry for entry in pieces if entry.flag == subject][-1]]
    elif "contradicts" in text:  # each side of it, where one is what an older switch means that switch
        sides = [alias or subject for alias in re.findall(r"\([^,)]+(?:, --(\w+))?\)", text)] or [subject]
        yield from ([entry for entry in pieces if entry.flag != side] for side in sides)
    elif texts := list(_values(text)):
        yield from ([*others, piece(FLAGS[subject], value)] for value in texts)
    elif WRONG.search(text):
        yield [*others, good(Random(line), FLAGS[subject])]
    elif settings := list(_settings(text, subject)):
        yield from (put(pieces, *setting) for setting in settings)
        if re.search(r"\b(leave|remove) it\b", text) or STRICT.search(line):
            yield others
    else:
        yield [*others, *(entry for entry in base() if entry.flag == subject)]


def without(pieces: list[Piece], *flags: str) -> list[Piece]:
    """With a flag go the older switches that set it."""
    gone = {*flags, *(older for older, means in OLDER.items() if {*flags} & means)}
    return [entry for entry in pieces if entry.flag not in gone]


def put(pieces: list[Piece], *new: Piece) -> list[Piece]:
    """In place of what stands there for the same flags; a piece without words only takes that away."""
    kept = without(pieces, *(entry.flag for entry in new))
    return [*kept, *(entry for entry in new if entry.words)]


def _values(text: str) -> Iterator[str]:
    """Values of the flag that the line begins with: inside its bounds, a choice, or one that is said to work."""
    if "it must be" in text:
        for sign, limit in BOUND.findall(text.partition("it must be")[2]):
            yield {">": f"{float(limit) + 1e-3:g}", "<": f"{float(limit) - 1e-3:g}"}.get(sign, limit)
    elif "choices: " in text:
        yield from re.split(", ", text.partition("choices: ")[2].partition(";")[0].partition(", or a")[0])
    elif "recommended range" in text:
        yield from re.findall(r"\S+(?= to )|(?<= to )\S+", text)
    elif match := re.search(r"; use ([a-z]+) or ([a-z]+)$|; (\S+) works$", text):
        yield from filter(None, match.groups())


def _settings(text: str, subject: str) -> Iterator[list[Piece]]:
    """What stands after the last semicolon, cut at "or" and at commas; a number alone is another one for the flag."""
    last, (*before, proposed) = subject, CLAUSE.split(text)
    for part in re.split(r",? or |, (?:at least )?", proposed if before else ""):
        part = part.removeprefix("at least ")
        named = [match for match in SETTING.findall(part) if match[1] in FLAGS]
        if named:
            last = named[-1][1]
            instead = [Piece(name, ()) for name in NAMED.findall(text) if re.search(r"--\w+ (alone|with)\b", part)]
            yield [*instead, *(_piece(name, word, is_off=bool(no)) for no, name, word in named)]
        elif match := NUMBER.search(part):
            yield [_piece(last, str(int(match[2]) + 1) if match[1] else match[2])]


def _piece(name: str, word: str, *, is_off: bool = False) -> Piece:
    flag = FLAGS[name]
    if flag.is_switch:
        return piece(flag, "false" if is_off else "true")
    if name == "prompt_data_probs":
        return piece(flag, *["0.5"] * int(word))
    word = REWARDS.get(name, word)
    return piece(flag, word) if word else good(Random(name), flag)
