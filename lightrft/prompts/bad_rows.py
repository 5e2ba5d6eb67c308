"""Rows that cannot be used: what is wrong with each, and whether that ends the run."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from lightrft.errors import Refused
from lightrft.types import Prompt

OTHER_SEPARATOR = re.compile(r"[;|\t]")


class BadRow(Exception):
    """What is wrong with one row, without its place: one line, with what would work."""


def not_cut(names: Sequence[str]) -> str | None:
    """What to do where the only name is that of several columns with something else than commas between them."""
    between = OTHER_SEPARATOR.search(names[0]) if len(names) == 1 else None
    return f"separate columns by commas, not {between[0]!r}" if between else None


@dataclass(frozen=True)
class _Fault:
    origin: int
    where: str
    reason: str


@dataclass
class BadRows:
    """The bad rows among all that one flag reads; `--on_bad_row` decides what they lead to.

    `settle` comes after each stage that may have added some: it refuses the run, or lets it go on without them.
    """

    flag: str = "--prompt_data"
    skip: bool = False
    read: int = 0  # rows looked at, good and bad
    faults: list[_Fault] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # of good rows: what is done with them that one might not expect

    def add(self, origin: int, where: str, reason: str) -> None:
        self.faults.append(_Fault(origin, where, reason))

    def settle(self, emptied: Collection[int]) -> None:
        """`emptied`: sources of which no row is left. Raises `Refused` for any fault, with `skip` for these only."""
        fatal = [fault for fault in self.faults if not self.skip or fault.origin in emptied]
        if fatal:
            first, more = fatal[0], len(fatal) - 1
            others = f" (and {more} more bad rows)" if more else ""
            raise Refused(f"{self.flag} {first.where}: {first.reason}{others}; {self._way_out(first, emptied)}")

    def _way_out(self, fault: _Fault, emptied: Collection[int]) -> str:
        if fault.origin in emptied:
            return "no row of this source is good"
        return f"--on_bad_row skip leaves {'them' if len(self.faults) > 1 else 'it'} out"

    def summary(self) -> list[str]:
        """A line for the user about what was left out, none if nothing was."""
        if not self.faults:
            return []
        first, count = self.faults[0], len(self.faults)
        return [
            f"skipped {count} of {self.read} rows of {self.flag} (first: {first.where}: {first.reason})",
            *self.notices,
        ]


def origins(prompts: Collection[Prompt]) -> set[int]:
    return {prompt.origin for prompt in prompts}
