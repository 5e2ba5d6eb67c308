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


def separator_remedy(names: Sequence[str]) -> str | None:
    """What to do where one name holds several columns, because no commas stand between them; else None."""
    separator = OTHER_SEPARATOR.search(names[0]) if len(names) == 1 else None
    return f"separate columns by commas, not {separator[0]!r}" if separator else None


@dataclass(frozen=True)
class _Fault:
    origin: int
    where: str
    reason: str


@dataclass
class BadRows:
    """The bad rows among all that one flag reads; `--on_bad_row` decides what they lead to.

    Each stage that may have added some calls `settle`: it refuses the run, or lets it go on without them.
    """

    flag: str = "--prompt_data"
    skip: bool = False
    read: int = 0  # good and bad rows
    faults: list[_Fault] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # what one might not expect to be done with good rows

    def add(self, origin: int, where: str, reason: str) -> None:
        self.faults.append(_Fault(origin, where, reason))

    def settle(self, emptied: Collection[int]) -> None:
        """Raises `Refused` for any fault; with `skip` only for a source in `emptied`, which has no row left."""
        fatal = [fault for fault in self.faults if not self.skip or fault.origin in emptied]
        if fatal:
            first, more = fatal[0], len(fatal) - 1
            others = f" (and {more} more bad rows)" if more else ""
            raise Refused(f"{self.flag} {first.where}: {first.reason}{others}; {self._remedy(first, emptied)}")

    def _remedy(self, fault: _Fault, emptied: Collection[int]) -> str:
        if fault.origin in emptied:
            return "no row of this source is good"
        return f"--on_bad_row skip leaves {'them' if len(self.faults) > 1 else 'it'} out"

    def summary(self) -> list[str]:
        """Lines for the user about the rows that were left out."""
        if not self.faults:
            return []
        first, count = self.faults[0], len(self.faults)
        return [
            f"skipped {count} of {self.read} rows of {self.flag} (first: {first.where}: {first.reason})",
            *self.notices,
        ]


def origins(prompts: Collection[Prompt]) -> set[int]:
    return {prompt.origin for prompt in prompts}
