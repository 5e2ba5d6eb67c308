"""The command line: argparse for reading and for `--help`, without its habit of stopping at the first mistake.

Every flag takes any number of words here, and how many it should have is checked afterwards; so argparse itself finds
nothing to refuse, and all problems can be reported together.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from typing import Any, NoReturn

from lightrft.args.convert import Wrong, from_words
from lightrft.args.field import Record, as_text
from lightrft.args.names import DOTTED, about_dotted, about_unknown
from lightrft.args.settings import ON_COMMAND_LINE, Problem, Setting, typed_setting
from lightrft.args.surface import FLAGS, GROUPS, NAMES, Flag
from lightrft.errors import Refused

TYPED = "typed"
PLAIN = re.compile(r"-[0-9]+|-[0-9]*\.[0-9]+")
FLAG = re.compile(r"--\w+")
DASHED = "; one that begins with a dash is written --flag=-value"
ALONE = "text"  # what `--print_args` means without a value
USAGE = "%(prog)s --pretrain MODEL --prompt_data FILE --reward_fn RULE --rollout_batch_size N --train_batch_size N "
USAGE += "--save_path FOLDER [--flag value ...]"


def read_command_line(argv: Sequence[str]) -> list[Setting | Problem]:
    """What was typed, in order. Prints the help and exits with 0 where it is asked for."""
    words, problems = _without_dotted(argv)
    known, rest = build_parser().parse_known_args(words)
    typed = [
        typed_setting(FLAGS[flag], partial(_value, FLAGS[flag], option, values), ON_COMMAND_LINE, option, option[2:])
        for flag, option, values in getattr(known, TYPED, ())
    ]
    return [*problems, *_two_names(typed, getattr(known, TYPED, ())), *typed, *_strangers(rest)]


def _two_names(typed: Sequence[Setting | Problem], options: Sequence[tuple[str, str, object]]) -> Iterator[Problem]:
    """Of a flag typed twice the last one counts, and of its opposites; two names for one thing contradict."""
    last: dict[str, tuple[str, Any]] = {}
    for entry, (flag, option, _) in zip(typed, options, strict=True):
        if isinstance(entry, Problem) or _bare(option) in FLAGS[flag].record.opposites:
            continue
        name, value = last.get(flag, (option, entry.value))
        if _bare(name) != _bare(option) and value != entry.value:
            yield Problem((flag,), f"{name} and {option} are one flag with two values; remove one")
        last[flag] = option, entry.value


def _bare(option: str) -> str:
    return option.removeprefix("--").removeprefix("no-")


def build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        usage=USAGE,
        description="Reinforcement fine-tuning of language models.",
        epilog="Command line > YAML (--config) > preset of --mode > the estimator's defaults > those shown here.",
        allow_abbrev=False,
        formatter_class=_Formatter,
        argument_default=argparse.SUPPRESS,
    )
    for group, cls in GROUPS.items():
        section = parser.add_argument_group(cls.__doc__)
        for flag in (flag for flag in FLAGS.values() if flag.group == group):
            section.add_argument(
                *_options(flag),
                dest=flag.name,
                nargs="*",
                action=_Typed,
                metavar=_metavar(flag),
                help=_help(flag.record),
            )
    return parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Refused(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        """As of Python 3.11: a reader of the help who goes early is no error."""
        with suppress(OSError):
            super()._print_message(message, file)


class _Typed(argparse.Action):
    """Appends what was typed, and keeps the namespace free of anything else."""

    def __call__(self, parser, namespace, values: Any, option_string: str | None = None) -> None:
        setattr(namespace, TYPED, [*getattr(namespace, TYPED, ()), (self.dest, option_string, list(values))])


class _Formatter(argparse.HelpFormatter):
    """Shows each flag with the values that it really takes."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=118)

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        flag = FLAGS.get(action.dest)
        if flag is None or flag.is_switch:
            return ""
        word = str(action.metavar)
        if flag.record.nargs == "?":
            return f"[{word}]"
        return " ".join([word] * flag.kind.count) if flag.kind.count else word

    def _format_action_invocation(self, action: argparse.Action) -> str:
        values = self._format_args(action, "")
        return ", ".join(action.option_strings) + (f" {values}" if values else "")


def _without_dotted(argv: Sequence[str]) -> tuple[list[str], list[Problem]]:
    """Sets `a.b.c=value` aside, before a list flag takes it for a value, and ties `-1e-3` to its flag: argparse
    knows only plain negative numbers for values."""
    words: list[str] = []
    problems: list[Problem] = []
    weights = False  # a part of the reward may have a dot in its name
    for word in argv:
        weights = word == "--reward_weights" if word.startswith("--") else weights
        if word == "--":
            problems.append(Problem((), "-- is not a flag; --help lists them all"))
        elif not weights and not _awaits_text(words) and DOTTED.fullmatch(word):
            problems.append(Problem((), about_dotted(word) or word))
        elif _is_negative(word) and not PLAIN.fullmatch(word) and words and FLAG.fullmatch(words[-1]):
            words[-1] += f"={word}"
        else:
            words.append(word)
    return words, problems


def _awaits_text(words: list[str]) -> bool:
    """Whether the last word is a flag whose text comes next: it may look like `a.b=c`."""
    flag = FLAGS.get(NAMES.get(words[-1].removeprefix("--"), "")) if words and FLAG.fullmatch(words[-1]) else None
    return flag is not None and flag.kind.of is str


def _is_negative(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return word.startswith("-")


def _value(flag: Flag, option: str, words: list[str]) -> Any:
    if flag.is_switch:
        if words:
            raise Wrong(f"takes no value, got {' '.join(map(repr, words))}; write --{flag.name} or --no-{flag.name}")
        name = option.removeprefix("--")
        return flag.turned(name.removeprefix("no-"), not name.startswith("no-"))
    if flag.record.nargs == "?" and not words:
        return ALONE
    if flag.kind.shape != "one" and not words:
        raise Wrong(f"takes at least one value, got none{DASHED}")
    if not words:
        raise Wrong(f"takes one value, got none{DASHED}")
    return from_words(flag.kind, words)


def _strangers(rest: Sequence[str]) -> Iterator[Problem]:
    """Words that argparse could not place. What follows an unknown flag is its value and needs no line of its own."""
    after_flag = False
    for word, following in zip_longest(rest, rest[1:]):
        is_flag = word.startswith("-") and not _is_negative(word)
        if is_flag:
            name, equals, value = word.partition("=")
            bare = name.lstrip("-")
            yield Problem((), about_unknown(bare, name[: len(name) - len(bare)], value if equals else following))
        elif not after_flag:
            yield Problem((), f"{word!r} belongs to no flag; remove it")
        after_flag = after_flag or is_flag


def _options(flag: Flag) -> list[str]:
    names = [f"--{name}" for name in flag.names]
    return [*names, *(f"--no-{name}" for name in flag.names)] if flag.is_switch else names


def _metavar(flag: Flag) -> str:
    allowed = flag.record.allowed()
    if allowed is not None:
        return "{" + ",".join(map(str, allowed)) + "}"
    if flag.kind.shape == "pairs":
        return "NAME=NUMBER ..."
    word = "PATH" if flag.record.path else {int: "INT", float: "FLOAT"}.get(flag.kind.of, "TEXT")
    return f"{word} ..." if flag.kind.shape == "list" and not flag.kind.count else word


def _help(record: Record) -> str:
    default = record.unset or as_text(record.default)
    facts = [f"not built yet: {record.unbuilt}"] if record.unbuilt else []
    facts += ["required" if record.required else f"default: {default}"]
    facts += [f"bounds: {record.bounds()}"] if record.bounds() else []
    if record.recommended:
        facts.append("recommended: {:g} to {:g}".format(*record.recommended))
    return f"{record.help} [{'; '.join(facts)}]".replace("%", "%%")
