"""A command line with its YAML files, and beside each piece of it what it must come to."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fuzz_oracle import Expected, expect
from fuzz_surface import Bad, Field, Node, Scalar, fields, from_node, from_words
from fuzz_truth import Fault, Good

BAD = object()
MUTATIONS: dict[str, Callable[[Case], None]] = {}


def mutation(function: Callable[[Case], None]) -> Callable[[Case], None]:
    """Enters the function among the mutations of a case."""
    MUTATIONS[function.__name__] = function
    return function


@dataclass
class Chunk:
    """A flag with its words; `front` stands before all flags, where no flag can take it for a value."""

    words: list[str]
    outcomes: list[Good | Fault]
    front: bool = False


@dataclass
class Entry:
    """A key in a YAML file: `line` counts from the start of its piece, `flag` is its flag's own name or None."""

    line: int
    key: str
    flag: str | None
    value: Any


@dataclass
class Piece:
    lines: list[str]
    entries: list[Entry] = field(default_factory=list)


@dataclass
class File:
    path: Path
    pieces: list[Piece] = field(default_factory=list)
    raw: bytes | None = None  # in place of the pieces
    is_broken: bool = False
    encode: str = "utf-8"
    newline: str = "\n"

    def write(self) -> None:
        text = self.newline.join(line for piece in self.pieces for line in piece.lines) + self.newline
        self.path.write_bytes(text.encode(self.encode) if self.raw is None else self.raw)

    def outcomes(self) -> list[Good | Fault]:
        if self.is_broken:
            return [Fault(rf"(--config )?{re.escape(str(self.path))}", ("config",))]
        if self.raw is not None:
            return []
        found: list[Good | Fault] = []
        start, seen = 1, set()
        for piece in self.pieces:
            for entry in piece.entries:
                found.append(self._outcome(entry, f"{self.path}:{start + entry.line}", seen))
            start += len(piece.lines)
        return found

    def _outcome(self, entry: Entry, where: str, seen: set[str]) -> Good | Fault:
        name, flags = entry.flag or entry.key, (entry.flag,) if entry.flag else ()
        if name in seen or entry.value is BAD:
            seen.add(name)
            return Fault(re.escape(where), flags)
        seen.add(name)
        return Good(name, entry.value, where)


class Case:
    """Built by mutations of a command line that is well; the same seed builds the same case."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.random, self.folder = Random(seed), folder
        self.fields = fields()
        self.taken = {name for entry in self.fields.values() for name in entry.names}
        self.chunks: list[Chunk] = []
        self.files: list[File] = []
        self.listed: list[list[str]] = []  # the paths of each --config
        self._base()

    def _base(self) -> None:
        rollout, train = self.random.choice(((4, 16), (8, 32), (2, 8), (4, 8), (4, 32), (16, 16)))
        texts = {
            "pretrain": "tiny",
            "prompt_data": "add.jsonl",
            "save_path": "out",
            "rollout_batch_size": str(rollout),
            "train_batch_size": str(train),
            "reward_fn": "last_number",
        }
        for name, text in texts.items():
            if self.random.random() < 0.25:
                self.write_in_yaml(self.fields[name], Scalar(text))
            else:
                self.type(self.fields[name], [text])

    def any_field(self, *, unbuilt: bool = False, switch: bool | None = None, shape: str | None = None) -> Field:
        """One of the flags that are built (or not); --config stands for itself."""
        return self.random.choice(
            [
                entry
                for entry in self.fields.values()
                if entry.unbuilt == unbuilt and entry.name not in ("config", "advantage_estimator", "strict_args")
                if switch is None or entry.is_switch == switch
                if shape is None or entry.shape == shape
            ]
        )

    def any_number(self, shape: str | None = None) -> Field:
        """Mostly a flag of numbers, which can be wrong in more ways than a text."""
        while True:
            entry = self.any_field(switch=False, shape=shape)
            if entry.of is not str or self.random.random() < 0.2:
                return entry

    # The command line

    def type(self, entry: Field, words: list[str], *, glued: bool = False) -> None:
        """The flag with its words; `glued` as --flag=word, which must be one."""
        option = f"--{self.random.choice((entry.name, *entry.aliases))}"
        try:
            outcome = Good(entry.name, from_words(entry, words), "cli")
        except Bad:
            outcome = Fault(re.escape(option), (entry.name,))
        self.add([f"{option}={words[0]}"] if glued else [option, *words], outcome)

    def switch(self, entry: Field, words: tuple[str, ...] = ()) -> None:
        option = self.random.choice(entry.options)
        name, on = option.removeprefix("--").removeprefix("no-"), not option.startswith("--no-")
        good = Good(entry.name, on != (name in entry.opposites), "cli")
        self.add([option, *words], Fault(option, (entry.name,)) if words else good)

    def add(self, words: list[str], *outcomes: Good | Fault, front: bool = False) -> None:
        self.chunks.append(Chunk(words, list(outcomes), front))

    # The files

    def any_file(self) -> File:
        """One that --config names; made where there is none, or now and then."""
        whole = [file for file in self.files if file.raw is None]
        if not whole or self.random.random() < 0.15:
            whole = [self.new_file()]
        return self.random.choice(whole)

    def new_file(self) -> File:
        file = File(self.folder / f"{'abcdefgh'[len(self.files) % 8]}{len(self.files)}.yaml")
        self.files.append(file)
        if not self.listed:
            self.listed.append([])
        self.random.choice(self.listed).append(str(file.path))
        return file

    def write_in_yaml(self, entry: Field, node: Node, *, file: File | None = None) -> None:
        """The flag with its value, flat or under its group."""
        key = self.random.choice(entry.names)
        try:
            value = from_node(entry, node)
            value = value != (key in entry.opposites) if isinstance(value, bool) else value
        except Bad:
            value = BAD
        lines, line = self._form(entry.group, key, node)
        self.put(Piece(lines, [Entry(line, key, entry.name, value)]), file)

    def put(self, piece: Piece, file: File | None = None) -> None:
        filler = self.random.choice(([], [], [""], ["# a comment: yes", ""]))
        (file or self.any_file()).pieces.extend([Piece(filler), piece])

    def _form(self, group: str, key: str, node: Node) -> tuple[list[str], int]:
        form = self.random.choice(("flat", "nested", "flow", "quoted"))
        if isinstance(node, list) and node and form != "flow" and self.random.random() < 0.5:
            below = [f"    - {entry.written}" for entry in node]
            return ([f"{group}:", f"  {key}:", *below], 1) if form == "nested" else ([f"{key}:", *below], 0)
        text = written(node)
        if form == "nested":
            return [f"{group}:", f"  {key}: {text}"], 1
        if form == "flow" and (not isinstance(node, Scalar) or re.fullmatch(r"[\w./+-]+", text)):
            return [f"{group}: {{{key}: {text}}}"], 0
        return [f'"{key}": {text}' if form == "quoted" else f"{key}: {text}"], 0

    # The whole

    def finish(self) -> tuple[list[str], Expected]:
        """Writes the files; the words, and what must come of them."""
        for file in self.files:
            file.write()
        for paths in self.listed:
            self.add(["--config", *paths], Good("config", tuple(paths), "cli"))
        chunks = self._ordered()
        typed = [outcome for chunk in chunks for outcome in chunk.outcomes]
        configs = [outcome for outcome in typed if isinstance(outcome, Good) and outcome.flag == "config"]
        paths = tuple(path for config in configs for path in config.value)
        by_path = {str(file.path): file for file in self.files}
        read = [by_path[path].outcomes() if path in by_path else [_unread(path)] for path in paths]
        if paths:  # several --config are one
            typed = [*(outcome for outcome in typed if outcome not in configs), Good("config", paths, "cli")]
        outcomes = [*(outcome for file in read for outcome in file), *typed]
        goods = [outcome for outcome in outcomes if isinstance(outcome, Good)]
        faults = [outcome for outcome in outcomes if isinstance(outcome, Fault)]
        faults += self._two_names(chunks)
        return [word for chunk in chunks for word in chunk.words], expect(goods, faults)

    def _two_names(self, chunks: list[Chunk]) -> list[Fault]:
        """One flag under two names with two values, one after the other; an opposite is no other name."""
        found: list[Fault] = []
        last: dict[str, tuple[str, Any]] = {}
        for chunk in chunks:
            option = chunk.words[0].partition("=")[0]
            for good in (outcome for outcome in chunk.outcomes if isinstance(outcome, Good)):
                bare = option.removeprefix("--").removeprefix("no-")
                if good.flag not in self.fields or bare in self.fields[good.flag].opposites:
                    continue
                before, value = last.get(good.flag, (option, good.value))
                if before.removeprefix("--").removeprefix("no-") != bare and value != good.value:
                    found.append(Fault(f"{before} and {option}", (good.flag,)))
                last[good.flag] = option, good.value
        return found

    def _ordered(self) -> list[Chunk]:
        """Shuffled. A dotted override right after --reward_weights would be one of its pairs: it moves to the front."""
        self.random.shuffle(self.chunks)
        return sorted(self.chunks, key=lambda chunk: not chunk.front)


def _unread(path: str) -> Fault:
    return Fault(rf"--config {re.escape(path)}", ("config",))


def written(node: Node) -> str:
    if isinstance(node, Scalar):
        return node.written
    if isinstance(node, list):
        return f"[{', '.join(entry.written for entry in node)}]"
    return f"{{{', '.join(f'{name.written}: {value.written}' for name, value in node.items())}}}"
