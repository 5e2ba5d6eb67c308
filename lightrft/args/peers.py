"""The names of other trainers, from peers.csv: what each of them is called here, and where its meaning differs.

A row is `trainer|name|ours|note`. A name may be dotted, and `name=value` is a row for one value alone. `ours` is a flag
of this surface, with a value where it is always the same; without one the note says why there is none. A row
`flag=value` of a flag of ours, with no note, is a word for the same choice, and is taken for it.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("peers.csv")


@dataclass(frozen=True)
class Peer:
    trainer: str
    name: str
    ours: str
    note: str

    @property
    def flag(self) -> str:
        return self.ours.partition(" ")[0]

    @property
    def value(self) -> str:
        """The one that ours always has then, or ""."""
        return self.ours.partition(" ")[2]


def _read() -> Iterator[Peer]:
    with TABLE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="|", quoting=csv.QUOTE_NONE):
            yield Peer(**row)


PEERS = tuple(_read())
ROWS: dict[str, Peer] = {row.name.lower(): row for row in PEERS}


def peer_of(name: str, value: str | None = None) -> Peer | None:
    """The row of a name, or else of the longest end that the name and a dotted one of the table share."""
    parts = name.lower().replace("-", "_").split(".")
    if parts[0] == "worker":  # EasyR1's, else verl's
        return _row(".".join(parts), value) or peer_of(".".join(["actor_rollout_ref", *parts[1:]]), value)
    ends = (".".join(parts[start:]) for start in range(len(parts)))
    return next((row for end in ends if (row := _row(end, value))), None)


def _row(end: str, value: str | None) -> Peer | None:
    name = end if end in ROWS else _longer(end)
    valued = [] if value is None else [f"{end}={value.lower()}", f"{name}={value.lower()}"]
    return next((ROWS[key] for key in (*valued, name) if key in ROWS), None)


def _longer(end: str) -> str:
    """The dotted name that ends so; one word alone has to mean one thing in all of them."""
    longer = [name for name in ROWS if name.endswith(f".{end}")]
    alike = "." in end or len({ROWS[name].ours for name in longer}) == 1
    return longer[0] if longer and alike else end
