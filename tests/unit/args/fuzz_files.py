"""Mutations of the YAML files."""

from __future__ import annotations

import json
import re

import yaml
from fuzz_case import BAD, Case, Entry, Piece, mutation
from fuzz_surface import Node, Scalar
from fuzz_texts import NASTY_YAML, bound_text, misspelt, right_node, right_text, right_words
from fuzz_typed import SEVERAL

BROKEN = (
    b"seed: 1\n\tmax_len: 3\n",  # a tab
    b"seed: [1\nmax_len: 3\n",
    b"seed: 1\n max_len: 3\n",
    b"seed: {1: 2\n",
    b"seed: 'open\n",
    b"seed: *nowhere\n",
    b"a: &a 1\n a: 2",
    b"seed: 1\n---\nseed: 2\n",
    b"seed: @x\n",
    b"seed: 1\n%YAML 9\n",
    b"%YAML 9.9\n---\nseed: 1\n",
    b"seed: " + b"[" * 600,
    b"\x00\x01\x02",
    b"seed: 1\x00\n",
    b"\xff\xfe\x00s\x00e",
    b"input_key: \xe9\n",
    b"\x89PNG\r\n\x1a\n\x00\x00",
    "seed: 1\n".encode("utf-16"),
    b"- seed\n- 1\n",
    b"seed\n",
    b"5\n",
    b"'seed: 1'\n",
    b"[seed, 1]\n",
    b"!!set {seed}\n---\n",
)
EMPTY = (b"", b"\n\n", b"# seed: 1\n", b"---\n", b"---\n...\n", b"\xef\xbb\xbf")


# Values in files


@mutation
def in_yaml(case: Case) -> None:
    entry = case.any_field()
    case.write_in_yaml(entry, right_node(case.random, entry))


@mutation
def bound_in_yaml(case: Case) -> None:
    for _ in range(SEVERAL):
        entry = case.any_number(shape="one")
        text = bound_text(case.random, entry)
        case.write_in_yaml(entry, Scalar(json.dumps(text) if entry.of is str else text))


@mutation
def nasty_in_yaml(case: Case) -> None:
    for _ in range(SEVERAL):
        entry = case.random.choice((case.any_number(shape="one"), case.any_field(shape="one")))
        case.write_in_yaml(entry, Scalar(case.random.choice(NASTY_YAML)))


@mutation
def wrong_shape_in_yaml(case: Case) -> None:
    entry = case.any_field()
    shapes: list[Node] = [[Scalar("1"), Scalar("a")], {Scalar("a"): Scalar("1")}, [], {}, {Scalar("1"): Scalar("2")}]
    case.write_in_yaml(entry, case.random.choice(shapes))


@mutation
def foreign_tag(case: Case) -> None:
    """`!!str 5` is a text, and nobody knows what `!env 5` is. `1e-6` YAML takes for a text with or without !!str."""
    entry = case.random.choice(
        [entry for entry in case.fields.values() if entry.shape == "one" and entry.of is not str]
    )
    text = right_text(case.random, entry) if entry.of is not bool else "true"
    tags = ("!env",) if isinstance(yaml.safe_load(text), str) else ("!!str", "!env")
    case.write_in_yaml(entry, Scalar(f"{case.random.choice(tags)} {text}"))


@mutation
def empty_list_in_yaml(case: Case) -> None:
    """Sets a list to nothing, which a required one cannot be."""
    case.write_in_yaml(case.random.choice((case.any_field(shape="list"), case.fields["prompt_data"])), [])


@mutation
def twice_in_one_file(case: Case) -> None:
    """By one name or two."""
    entry, file = case.random.choice((case.any_field(), case.fields["max_new_tokens"])), case.any_file()
    case.write_in_yaml(entry, right_node(case.random, entry), file=file)
    case.write_in_yaml(entry, right_node(case.random, entry), file=file)


@mutation
def everywhere(case: Case) -> None:
    """Two files and the command line set one flag; the preset may too."""
    entry = case.any_field(switch=False)
    for file in (case.any_file(), case.new_file()):
        case.write_in_yaml(entry, right_node(case.random, entry), file=file)
    case.type(entry, right_words(case.random, entry))


@mutation
def mode(case: Case) -> None:
    entry = case.fields["mode"]
    if case.random.random() < 0.5:
        case.type(entry, right_words(case.random, entry))
    else:
        case.write_in_yaml(entry, right_node(case.random, entry))


# Keys in files


def key_line(case: Case, key: str, value: str = "1") -> None:
    case.put(Piece([f"{key}: {value}"], [Entry(0, key, None, BAD)]))


@mutation
def unknown_key(case: Case) -> None:
    key_line(case, case.random.choice(("qqqq", "a.b", "5", "no-fsdp", "--seed", "true", "[seed]", "SEED")))


@mutation
def misspelt_key(case: Case) -> None:
    key_line(case, misspelt(case.random, case.random.choice(sorted(case.taken)), case.taken))


@mutation
def config_in_a_file(case: Case) -> None:
    case.put(Piece(["config: other.yaml"], [Entry(0, "config", "config", BAD)]))


@mutation
def wrong_group(case: Case) -> None:
    entry = case.any_field()
    group = case.random.choice([other.group for other in case.fields.values() if other.group != entry.group])
    case.put(Piece([f"{group}:", f"  {entry.name}: 1"], [Entry(1, entry.name, entry.name, BAD)]))


@mutation
def group_without_flags(case: Case) -> None:
    group, value = case.any_field().group, case.random.choice(("3", "[a]", "''", "x", "true"))
    case.put(Piece([f"{group}: {value}"], [Entry(0, group, None, BAD)]))


@mutation
def group_in_a_group(case: Case) -> None:
    group = case.any_field().group
    inner = case.random.choice(("{seed: 1}", "3"))
    case.put(Piece([f"training: {{{group}: {inner}}}"], [Entry(0, group, None, BAD)]))


@mutation
def empty_group(case: Case) -> None:
    """Sets nothing. Both forms may stand in one file with others of the group."""
    case.put(Piece([f"{case.any_field().group}: {{}}"]))


@mutation
def anchor_and_alias(case: Case) -> None:
    file, text = case.any_file(), case.random.choice(("1", "2", "0", "0.5", "x"))
    node, name = Scalar(text), f"x{len(file.pieces)}"
    for start, entry in ((f"&{name} ", case.any_field(shape="one")), (f"*{name}", case.any_field(shape="one"))):
        case.write_in_yaml(entry, node, file=file)
        piece = file.pieces[-1]
        last = piece.lines[-1]
        piece.lines[-1] = re.sub(rf"{re.escape(text)}(?=}}?$)", f"{start}{text if start[0] == '&' else ' '}", last)


@mutation
def merge_key(case: Case) -> None:
    case.put(Piece(["<<: {seed: 3}"], [Entry(0, "<<", None, BAD)]))


# Files


@mutation
def broken_file(case: Case) -> None:
    _raw(case, case.random.choice(BROKEN), is_broken=True)


@mutation
def empty_file(case: Case) -> None:
    _raw(case, case.random.choice(EMPTY), is_broken=False)


def _raw(case: Case, content: bytes, *, is_broken: bool) -> None:
    file = case.new_file()
    file.raw, file.is_broken = content, is_broken


@mutation
def other_encoding(case: Case) -> None:
    file = case.any_file()
    file.encode, file.newline = case.random.choice((("utf-8-sig", "\n"), ("utf-8", "\r\n"), ("utf-8-sig", "\r\n")))


@mutation
def no_such_file(case: Case) -> None:
    paths = case.random.choice(("nowhere.yaml", "", ".", "no/folder/run.yaml", "x" * 300))
    path = str(case.folder / paths) if paths else str(case.folder)
    case.listed.append([path])


@mutation
def two_configs(case: Case) -> None:
    """The later --config goes on with the earlier one; a file may be named twice."""
    first = case.any_file()
    case.listed.append([str(first.path)] * case.random.choice((1, 2)))
