"""What the declarations say about each flag, and a judgement of texts that is the fuzz test's own.

Types, bounds and choices are read from the declarations; how a text becomes a value is decided here anew, by decimal
arithmetic and by PyYAML's own loader, without the code under test.
"""

from __future__ import annotations

import dataclasses
import math
import string
import types
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from lightrft.args.surface import GROUPS

ASCII_NUMBER = set(string.digits + "+-.eE")
LARGEST_DIGITS = 18
NULLS = ("", "~", "null", "Null", "NULL")
Limit = tuple[float, bool]  # and whether the limit itself is inside
BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Bad(Exception):
    """The text is no value of the flag."""


@dataclass(frozen=True)
class Field:
    name: str
    group: str
    of: type
    shape: str  # one, list or pairs
    optional: bool
    count: int | None
    alone: bool  # may stand without a value
    low: Limit
    high: Limit
    choices: tuple[Any, ...]
    required: bool
    default: Any
    unbuilt: bool
    aliases: tuple[str, ...]
    opposites: tuple[str, ...]
    recommended: tuple[float, float] | None

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, *self.aliases, *self.opposites)

    @property
    def is_switch(self) -> bool:
        return self.of is bool

    @property
    def options(self) -> tuple[str, ...]:
        """Everything that may be typed for it."""
        plain = tuple(f"--{name}" for name in self.names)
        return (*plain, *(f"--no-{name}" for name in self.names)) if self.is_switch else plain


def _field(group: str, entry: dataclasses.Field, hint: Any) -> Field:
    record = entry.metadata["flag"]
    optional = get_origin(hint) in (Union, types.UnionType)
    if optional:
        (hint,) = (part for part in get_args(hint) if part is not types.NoneType)
    shape, of = "one", hint
    if get_origin(hint) is tuple:
        shape, of = "list", get_args(hint)[0]
    elif get_origin(hint) is not None and issubclass(get_origin(hint), Mapping):
        shape, of = "pairs", get_args(hint)[1]
    choices: Any = record.choices() if callable(record.choices) else record.choices
    return Field(
        name=entry.name, group=group, of=of, shape=shape, optional=optional,
        count=record.nargs if isinstance(record.nargs, int) else None, alone=record.nargs == "?",
        low=_limit(record.ge, record.gt, -math.inf), high=_limit(record.le, record.lt, math.inf),
        choices=tuple(choices or ()),
        required=record.required, default=record.default, unbuilt=bool(record.unbuilt),
        aliases=record.aliases, opposites=record.opposites, recommended=record.recommended,
    )  # fmt: skip


def _limit(inside: float | None, outside: float | None, none: float) -> Limit:
    if inside is not None:
        return inside, True
    return (none, True) if outside is None else (outside, False)


@cache
def fields() -> dict[str, Field]:
    """Every flag by name. Choices may be a folder's listing: it is read once, and all tests here have the same."""
    found = {}
    for group, cls in GROUPS.items():
        hints = get_type_hints(cls)
        found.update({entry.name: _field(group, entry, hints[entry.name]) for entry in dataclasses.fields(cls)})
    return found


def number(of: type, text: str) -> Any:
    """An ASCII decimal number: no 0x, 1_000, nan, inf or digits of other scripts; integers without leading zeros."""
    if not text or set(text) - ASCII_NUMBER:
        raise Bad(text)
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise Bad(text) from error
    if of is int:
        digits = text.lstrip("+-")
        if len(text) - len(digits) > 1 or set(digits) - set(string.digits) or str(int(digits)) != digits:
            raise Bad(text)
        if len(digits) > LARGEST_DIGITS:
            raise Bad(text)
        return int(value)
    if not math.isfinite(float(value)):
        raise Bad(text)
    return float(value)


def item(field: Field, text: str) -> Any:
    """One value from one text, inside the flag's bounds and choices."""
    value = text if field.of is str else number(field.of, text)
    outside = field.of is not str and not _inside(field, value)
    if value == "" or outside or (field.choices and value not in field.choices):
        raise Bad(text)
    return value


def _inside(field: Field, value: Any) -> bool:
    (low, low_belongs), (high, high_belongs) = field.low, field.high
    return (value > low or (low_belongs and value == low)) and (value < high or (high_belongs and value == high))


def pair(field: Field, text: str) -> tuple[str, Any]:
    """name=number; a name may hold further = signs."""
    name, _, value = text.rpartition("=")
    if not name:
        raise Bad(text)
    return name, item(field, value)


def from_words(field: Field, words: list[str]) -> Any:
    """What the words after a flag mean; switches have none."""
    if field.alone and not words:
        return field.choices[0]
    if field.shape == "one":
        if len(words) != 1:
            raise Bad(words)
        return item(field, words[0])
    if not words:
        raise Bad(words)
    return _many(field, words)


@dataclass(frozen=True)
class Scalar:
    """One scalar as it is written in a YAML file, quotes and tags included."""

    written: str

    @property
    def is_plain(self) -> bool:
        return not self.written.startswith(("'", '"', "!"))

    @property
    def is_null(self) -> bool:
        return self.written in NULLS

    @property
    def text(self) -> str:
        """Raises Bad where YAML does not read a text."""
        try:
            found = yaml.safe_load(f"x: {self.written}")["x"]
        except (yaml.YAMLError, ValueError) as error:  # a tag that YAML does not know, a date that there is not
            raise Bad(self.written) from error
        if not isinstance(found, str):
            raise Bad(self.written)
        return found


Node = Scalar | list | dict  # of Scalars


def from_node(field: Field, node: Node) -> Any:
    """What a YAML value means."""
    if field.optional and isinstance(node, Scalar) and node.is_null:
        return None
    if field.shape == "one":
        return _one(field, node)
    if field.shape == "pairs" and isinstance(node, dict):
        return {name.text: _one(field, value) for name, value in node.items()}
    nodes = node if isinstance(node, list) else [node]
    if field.shape == "pairs":
        return _many(field, [_text_of(entry) for entry in nodes])
    if field.required and not nodes:
        raise Bad(node)
    return _counted(field, tuple(_one(field, entry) for entry in nodes))


def _one(field: Field, node: Node) -> Any:
    if not isinstance(node, Scalar):
        raise Bad(node)
    if field.of is str:
        return item(field, node.text)
    if not node.is_plain:
        raise Bad(node)
    if field.of is bool:
        if node.written not in BOOLEANS:
            raise Bad(node)
        return BOOLEANS[node.written]
    return item(field, node.written)


def _text_of(node: Node) -> str:
    if not isinstance(node, Scalar):
        raise Bad(node)
    return node.text


def _many(field: Field, texts: list[str]) -> Any:
    if field.shape == "list":
        return _counted(field, tuple(item(field, text) for text in texts))
    pairs = [pair(field, text) for text in texts]
    if len(dict(pairs)) < len(pairs):
        raise Bad(texts)
    return dict(pairs)


def _counted(field: Field, values: tuple[Any, ...]) -> tuple[Any, ...]:
    if field.count is not None and len(values) != field.count:
        raise Bad(values)
    return values
