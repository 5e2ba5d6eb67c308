"""Texts for flags: right ones in all notations, ones at the bounds, and ones that look like values and are none."""

from __future__ import annotations

import json
import math
import re
from random import Random

import yaml
from fuzz_surface import Bad, Field, Node, Scalar, item

WORDS = ("a", "run/x.y", "ü", "a b", "true", "null", "010", "1e-6", "#x", "a: b", "{}", "%d", "a=b", "*x", "it's", '"')
SOURCES = ("add.jsonl", "data/b.csv", "reasoning_gym:chain_sum", "org/name")
HARDWARE = ("1x80GB", "1x24gb", "2x80GB", "8x80GB", "two", "0x80GB", "8x", "1x0GB", "x80GB", "1 x 80GB")
POOLS = {"prompt_data": SOURCES, "eval_data": SOURCES, "assume_gpus": HARDWARE, "engine_kwargs": ("a=1", "b=x")}
PAIRS = ("a", "math.py:f", "c=d", "a b")

NASTY = (
    "", " ", "many", "nan", "NaN", "inf", "-inf", "Infinity", "1e999", "-1e999", "1_000", "１２", "٣", "0x10", "0b1",
    "010", "0o10", "1:30", "1,5", "1 0", " 5", "5 ", "3.5", "1e3", "5.0", ".5", "5.", ".", "+", "+5", "-5", "-1",
    "-0.5", "-.5", "-1e-3", "1e-6", "1E5", "1e", "e5", "1.2.3", "0", "1", "2", "true", "None", "null", "yes", "5%",
    "1/2", "99999999999999999999", "1e308", "1e-400", "1d5", "½", "1\n",
)  # fmt: skip
NASTY_YAML = (
    "", "~", "null", "Null", "yes", "no", "on", "off", "true", "False", "'true'", "'5'", '"5"', "'1e-6'", "5", "0",
    "-1", "010", "0o10", "0x10", "0b1", "1e-6", "1e5", "1.5e3", "1:30", "1_000", ".inf", "-.inf", ".nan", "nan", "inf",
    "1e999", "2024-01-01", "5.", ".5", "+5", "3.5", "99999999999999999999", "''", "!!str 5", "!env 5", "１２",
    "many", "a b", "1/2",
)  # fmt: skip


def right_text(random: Random, field: Field) -> str:
    """One value of the flag, in one of its notations."""
    if field.choices:
        return str(random.choice(field.choices))
    if field.of is str:
        return random.choice(POOLS.get(field.name, WORDS))
    if field.of is int:
        low = 0 if math.isinf(field.low[0]) else int(field.low[0])
        return _allowed(
            random, field, [str(low + random.choice((0, 1, 2, 3, 4, 8, 16, 32, 1000, 5000))) for _ in range(4)]
        )
    value = random.choice((0.0, 1e-7, 0.01, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0, 3.5, 100.0))
    texts = [repr(value), f"{value:e}", f"+{value!r}", f"{value:.3E}", f"{value:g}", repr(value).strip("0")]
    return _allowed(random, field, texts)


def _allowed(random: Random, field: Field, texts: list[str]) -> str:
    random.shuffle(texts)
    for text in texts:
        try:
            item(field, text)
            return text
        except Bad:
            continue
    return right_text(random, field)


def bound_text(random: Random, field: Field) -> str:
    """On a bound, just beside it, or far off. Flags without numbers get a value that is nearly a choice."""
    if field.of is str:
        near = str(random.choice(field.choices or ("",)))
        return random.choice((near, near.upper(), near[:-1], f"{near} ", f"{near}\n", ""))
    bounds = [limit for limit, _ in (field.low, field.high) if not math.isinf(limit)] or [0]
    bound, step = random.choice(bounds), 1 if field.of is int else 1e-6
    value = random.choice((bound, bound - step, bound + step, bound + 1, -bound - 10**6, 10**6))
    return f"{value:d}" if field.of is int else f"{value:.6f}"


def right_words(random: Random, field: Field) -> list[str]:
    """What stands after a flag that takes values."""
    if field.alone and random.random() < 0.5:
        return []
    if field.shape == "one":
        return [right_text(random, field)]
    if field.shape == "pairs":
        return [f"{name}={right_text(random, field)}" for name in random.sample(PAIRS, random.randint(1, 3))]
    return [right_text(random, field) for _ in range(field.count or random.randint(1, 3))]


def right_node(random: Random, field: Field) -> Node:
    if field.optional and random.random() < 0.1:
        return Scalar(random.choice(("null", "~", "")))
    if field.is_switch:
        return Scalar(random.choice(("true", "false", "True", "FALSE")))
    if field.shape == "pairs":
        pairs = {name: right_text(random, field) for name in random.sample(PAIRS, random.randint(1, 3))}
        if random.random() < 0.5:
            return {quoted(random, name, flow=True): Scalar(text) for name, text in pairs.items()}
        return [quoted(random, f"{name}={text}", flow=True) for name, text in pairs.items()]
    if field.shape == "list":
        count = field.count or random.randint(0 if not field.required else 1, 3)
        items: Node = [_scalar(random, field, flow=True) for _ in range(count)]
        return items[0] if count == 1 and random.random() < 0.5 else items
    return _scalar(random, field, flow=False)


def _scalar(random: Random, field: Field, *, flow: bool) -> Scalar:
    text = right_text(random, field)
    return quoted(random, text, flow=flow) if field.of is str else Scalar(text)


def quoted(random: Random, text: str, *, flow: bool) -> Scalar:
    """A text in one of the ways in which YAML writes it. Without quotes only where it stays a text."""
    ways = [json.dumps(text), json.dumps(text, ensure_ascii=False), "'" + text.replace("'", "''") + "'"]
    if _stays_text(text) and (not flow or re.fullmatch(r"[\w./=-]+", text)):
        ways.append(text)
    return Scalar(random.choice(ways))


def _stays_text(text: str) -> bool:
    try:
        return yaml.safe_load(f"x: {text}") == {"x": text}
    except yaml.YAMLError:
        return False


def misspelt(random: Random, name: str, taken: set[str]) -> str:
    """A name that no flag has, one slip of the finger away; or cut short, as an abbreviation."""
    at = random.randrange(1, len(name))
    slips = [name[:at] + name[at + 1 :], name[:at] + name[at] + name[at:], name[:at] + "x" + name[at:], name[:at]]
    slips += [name.replace("_", "-"), name.upper(), name.replace("_", ""), f"no_{name}", f"{name}s"]
    found = [slip for slip in slips if slip not in taken and len(slip) > 1]
    return random.choice(found)
