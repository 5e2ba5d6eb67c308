"""Whether an answer equals the reference as mathematics, through the math-verify library.

`judge` works in the calling process and may take for ever (`9**9**9**9`); the rules ask it in `sandbox.py`.
"""

from __future__ import annotations

import logging
import re
from decimal import Decimal
from typing import Any

BOX = re.compile(r"\\boxed\s*\{")
DELIMITED = re.compile(r"(?<!\\)\$|\\\(|\\\[")
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d{1,3})?")
WORDS = re.compile(r"[A-Za-z]{3,}(?: [A-Za-z]+)*")
# Words are found outside of \text{...} and of commands such as \sqrt. Three of them make a sentence.
NOT_A_WORD = re.compile(r"\\(?:text|textbf|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}|\\[A-Za-z]+")
WORD = re.compile(r"[A-Za-z]{2,}")
PLAIN = re.compile(r"[A-Za-z0-9+\-*/^=<>()\[\]{}|.,!% ]+")

# What the library misreads: it takes 10 000 for 10 * 0, 2**3 for nothing, pi for p * i and 1 1/2 for 1.
THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:(?:\\[,! ]|[ ~]|\{,\})\d{3})+(?!\d)")
REPAIRS = (
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"(?<![\\A-Za-z])pi(?![A-Za-z])"), r"\\pi "),
    (re.compile(r"(?<![\d/.])(\d+) (\d+)/(\d+)(?![\d/])"), r"\1\\frac{\2}{\3}"),
)


def load() -> None:
    import math_verify  # noqa: F401  # now, outside of the first answer's time

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we took its limit away


def judge(response: str, reference: str, boxed_only: bool) -> float:
    r"""1.0 if the response's answer equals the reference, else 0.0.

    The answer is what stands in the last `\boxed{}`. Without a box the whole response is read, unless `boxed_only`:
    what follows "answer is", else the last expression between dollars, else the last plain number. A response that
    holds no mathematics is wrong. Raises `ValueError` for a reference that holds none, and whatever the comparison
    raises.
    """
    from math_verify import verify

    gold = _read_alone(reference)
    if not gold:
        raise ValueError(f"the reference {reference[:80]!r} cannot be read as mathematics; LaTeX or a number works")
    answer = _answer(response, boxed_only)
    return float(bool(answer) and verify(gold, answer, timeout_seconds=None, raise_on_error=True))


def last_box(text: str) -> str | None:
    r"""What stands in the last `\boxed{}`; empty if it is not closed, None if there is none."""
    found = list(BOX.finditer(text))
    if not found:
        return None
    start, depth = found[-1].end(), 1
    for position in range(start, len(text)):
        if text[position] in "{}" and text[position - 1] != "\\":
            depth += 1 if text[position] == "{" else -1
        if depth == 0:
            return text[start:position]
    return ""


def _answer(response: str, boxed_only: bool) -> list[Any]:
    box = last_box(response)
    if box is not None:
        return _read_alone(box)
    if boxed_only:
        return []
    text = response.strip().strip("*")  # **7** is bold
    alone = PLAIN.fullmatch(text) is not None and not _words(text)
    return _read_alone(text) if alone else _parse(text)


def _read_alone(text: str) -> list[Any]:
    """What a text says that is an answer and nothing else: LaTeX with or without dollars, a number, words."""
    box = last_box(text)
    text = (text if box is None else box).strip()
    if DELIMITED.search(text) or len(_words(text)) > 2:
        return _parse(text)
    if NUMBER.fullmatch(text):
        text = f"{Decimal(text):f}"  # 1e-06 is a number here, not the product 1 * e - 6
    elif WORDS.fullmatch(text):
        text = rf"\text{{{text}}}"
    for pattern, replacement in REPAIRS:
        text = pattern.sub(replacement, text)
    return _parse(f"${text}$")


def _words(text: str) -> list[str]:
    return WORD.findall(NOT_A_WORD.sub(" ", text))


def _parse(text: str) -> list[Any]:
    """The answer that the library finds in the text; the order in which it looks is told at `judge`."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse

    text = THOUSANDS.sub(lambda found: re.sub(r"\D", "", found.group()), text.replace("\N{MINUS SIGN}", "-"))
    kinds = [LatexExtractionConfig(), ExprExtractionConfig()]
    return parse(text, kinds, fallback_mode="no_fallback", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
