"""Strict conversion of command line words and YAML nodes to a field's type.

PyYAML would read `1e-6` as a string, `no` as false, `010` as 8 and `1:30` as 90; so numbers and booleans are
converted from the text that the user wrote, for both ways of setting a flag alike.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, get_args, get_origin

import yaml
from yaml.resolver import Resolver

INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,17})")
WHOLE = re.compile(r"[-+]?[1-9][0-9]*")
NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
WANTED = {int: "an integer", float: "a finite number", str: "text", bool: "true or false"}


class Wrong(Exception):
    """The value is not of the flag's type; the text says what is expected and what was given."""


@dataclass(frozen=True)
class Kind:
    of: type
    shape: str  # "one", "list" or "pairs" (name=number)
    optional: bool
    count: int | None = None


def kind_of(annotation: Any, nargs: int | str | None) -> Kind:
    optional = get_origin(annotation) in (Union, types.UnionType)
    if optional:
        annotation = next(part for part in get_args(annotation) if part is not type(None))
    origin = get_origin(annotation)
    if origin is tuple:
        return Kind(get_args(annotation)[0], "list", optional, nargs if isinstance(nargs, int) else None)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Kind(get_args(annotation)[1], "pairs", optional)
    return Kind(annotation, "one", optional)


def from_words(kind: Kind, words: Sequence[str]) -> Any:
    """Command line words; booleans have none and are not converted here."""
    if kind.shape == "pairs":
        return _pairs(kind, words)
    if kind.shape == "list":
        return _counted(kind, tuple(_scalar(kind.of, word) for word in words))
    if len(words) != 1:
        surplus = f", and {' '.join(map(repr, words[1:]))} belongs to no flag" if words else ", got none"
        raise Wrong(f"takes one value{surplus}")
    return _scalar(kind.of, words[0])


def from_node(kind: Kind, node: yaml.Node) -> Any:
    if kind.optional and node.tag.endswith(":null"):
        return None
    if kind.shape == "pairs":
        return _pairs_of_node(kind, node)
    if kind.shape == "list":
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return _counted(kind, tuple(_scalar_of_node(kind.of, item) for item in nodes))
    return _scalar_of_node(kind.of, node)


def _scalar(of: type, text: str) -> Any:
    if of is str:
        return text
    if of is int and INTEGER.fullmatch(text):
        return int(text)
    if of is float and NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    wanted = "an integer of at most 18 digits" if of is int and WHOLE.fullmatch(text) else WANTED[of]
    raise Wrong(f"must be {wanted}, got {text!r}")


def _scalar_of_node(of: type, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.ScalarNode):
        shape = "a list" if isinstance(node, yaml.SequenceNode) else "a mapping"
        raise Wrong(f"must be {WANTED[of]}, got {shape}")
    plain = Resolver().resolve(yaml.ScalarNode, node.value, (True, False))
    if of is not str and node.style is None and node.tag != plain:
        raise Wrong(f"must be {WANTED[of]}, got the tag {node.tag!r}; remove it")
    is_text = node.tag.endswith(":str")
    if of is bool and node.style is None and node.value.lower() in ("true", "false"):
        return node.value.lower() == "true"
    if of is str and not is_text:
        raise Wrong(f"must be text, got {node.value!r}; put it in quotes")
    if of is bool or (of is not str and node.style is not None):
        raise Wrong(f"must be {WANTED[of]}, got {node.value!r}{' in quotes' if node.style else ''}")
    return _scalar(of, node.value)


def _counted(kind: Kind, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if kind.count is not None and len(values) != kind.count:
        raise Wrong(f"takes {kind.count} values, got {len(values)}")
    return values


def _pairs(kind: Kind, words: Sequence[str]) -> dict[str, Any]:
    pairs: dict[str, Any] = {}
    for word in words:
        name, equals, number = word.rpartition("=")
        if not equals or not name:
            raise Wrong(f"takes name=number{_with_a_name(word)}, got {word!r}")
        _add(pairs, name, _scalar(kind.of, number))
    return pairs


def _pairs_of_node(kind: Kind, node: yaml.Node) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        return _pairs(kind, [item.value if isinstance(item, yaml.ScalarNode) else _entry(item) for item in nodes])
    pairs: dict[str, Any] = {}
    for key, value in node.value:
        _add(pairs, _scalar_of_node(str, key), _scalar_of_node(kind.of, value))
    return pairs


def _with_a_name(word: str) -> str:
    """How the number alone that someone gave, as other trainers have it, is written."""
    return f", as in exact={word} or, in YAML, {{exact: {word}}}" if NUMBER.fullmatch(word) else ""


def _entry(node: yaml.Node) -> str:
    """`- name: number`, one item of a list, as the pair that it means."""
    if isinstance(node, yaml.MappingNode) and len(node.value) == 1:
        (key, value), *_ = node.value
        if isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode):
            return f"{key.value}={value.value}"
    raise Wrong("takes a mapping of names to numbers, {exact: 1.0}, or a list of name=number")


def _add(pairs: dict[str, Any], name: str, value: Any) -> None:
    if name in pairs:
        raise Wrong(f"names {name!r} twice; remove one")
    pairs[name] = value
