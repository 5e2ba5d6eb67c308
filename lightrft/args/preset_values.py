"""Which of the values that a line speaks of nobody typed, but the preset of `--mode`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from lightrft.args.surface import Args
from lightrft.errors import Refused

MENTION = re.compile(r"--(\w+) (\d+)\b")  # presets hold sizes and counts


def with_presets(args: Args, text: str) -> str:
    """The text, and which of its `--flag value` nobody typed but the preset of --mode."""
    named = dict.fromkeys(match for match in MENTION.findall(text) if _of_preset(args, *match))
    shown = ", ".join(f"--{flag} {value}" for flag, value in named)
    return f"{text} (from --mode {args.run.mode}: {shown})" if named else text


@contextmanager
def presets_named(args: Args) -> Iterator[None]:
    """A refusal inside says which of its values are the preset's."""
    try:
        yield
    except Refused as refused:
        raise Refused("\n".join(with_presets(args, line) for line in str(refused).splitlines())) from refused


def _of_preset(args: Args, flag: str, value: str) -> bool:
    """Not a value that is only proposed: it has to be the one that is set."""
    source = args.sources.get(flag)
    return source is not None and source.where.startswith("preset ") and value == str(args.value(flag))
