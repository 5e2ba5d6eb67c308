"""Small faults that some test has to notice, listed by area in the YAML files of this folder."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
FIELDS = {"why", "file", "old", "new", "tests"}


@dataclass(frozen=True)
class Mutant:
    """In `file`, `old` (which occurs once) becomes `new`; `tests`, words for pytest, must then fail."""

    name: str
    why: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self) -> str:
        """The file's text with the fault in it."""
        text = (ROOT / self.file).read_text()
        assert text.count(self.old) == 1, f"{self.name}: {self.file} holds the old text {text.count(self.old)} times"
        return text.replace(self.old, self.new)


def read_mutants() -> list[Mutant]:
    found = []
    for path in sorted(Path(__file__).parent.glob("*.yaml")):
        for number, entry in enumerate(yaml.safe_load(path.read_text()) or [], 1):
            assert entry.keys() == FIELDS, f"{path.name}, entry {number}: {sorted(entry)} instead of {sorted(FIELDS)}"
            words = shlex.split(entry.pop("tests"))
            found.append(Mutant(name=f"{path.stem}-{number}", tests=tuple(words), **entry))
    return found
