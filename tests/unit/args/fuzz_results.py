"""What becomes of command lines drawn at random; each is read once in a process."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from fuzz_cases import Piece, argv, draw

from lightrft.args import Args, check, parse
from lightrft.errors import Refused

CASES = 500


@dataclass(frozen=True)
class Result:
    seed: int
    pieces: list[Piece]
    args: Args | None
    lines: list[str]  # of the refusal, or the notices

    def __str__(self) -> str:
        return f"seed {self.seed}: {' '.join(argv(self.pieces))}"


def outcome(words: list[str]) -> tuple[Args | None, list[str]]:
    """The arguments with what is noticed, or the lines of the refusal; another exception is one too."""
    try:
        args = parse(words)
        return args, [str(notice) for notice in check(args, strict=args.run.strict_args)]
    except Refused as refusal:
        return None, str(refusal).split("\n")
    except Exception:
        return None, [f"an exception: {traceback.format_exc()[-600:]}"]


@cache
def read_all() -> list[Result]:
    return [Result(seed, pieces, *outcome(argv(pieces))) for seed in range(CASES) for pieces in [draw(seed)]]


def shown(wrong: Sequence[tuple[object, object]]) -> str:
    return "\n".join([f"{len(wrong)} wrong", *(f"{result}\n    {what}" for result, what in wrong[:8])])
