"""The reference of a row: what it is as a text, and why a rule can judge nothing by it."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real
from typing import Any

from lightrft.rewards.answers.extraction import in_object, last_box
from lightrft.rewards.answers.last_number import last_number_in
from lightrft.rewards.answers.numbers import Number
from lightrft.rewards.answers.prose import peeled
from lightrft.rewards.answers.quantities import quantity
from lightrft.rewards.answers.typography import plain
from lightrft.rewards.sandbox.process import Unjudged, sandbox


class BadReference(ValueError):
    """Nothing can be judged by it; the text says what it is."""


def text_of(reference: Any) -> str:
    """A text, or a finite number as a text; numbers of numpy and of `decimal` are numbers. Raises `BadReference`."""
    if reference is None:
        raise BadReference("the row has no reference")
    if getattr(reference, "shape", None) == () and not isinstance(reference, str):
        reference = reference[()]  # of an array without dimensions its one value; numpy's numbers stay what they are
    if isinstance(reference, bool) or not isinstance(reference, (str, Real, Decimal)):
        raise BadReference(f"the reference {_shown(reference)} is of type {type(reference).__name__}")
    if not isinstance(reference, str) and not math.isfinite(reference):
        raise BadReference(f"the reference {reference} is no finite number")
    text = str(reference)
    if not text.strip():
        raise BadReference(f"the reference {_shown(text)} is empty")
    return text


def number_of(reference: Any) -> Number:
    """The last number of the reference. Raises `BadReference`."""
    text = text_of(reference)
    number = number_in(text)
    if number is None:
        raise BadReference(f"the reference {_shown(text)} holds no number that is an answer")
    return number


def number_in(text: str) -> Number | None:
    """The last number of the last box, or of the whole text where there is none; of a JSON object its answer's."""
    box = last_box(text)
    shown = text if box is None else box
    return last_number_in(in_object(shown) or shown)


def mathematics_of(reference: Any) -> str:
    """The text, where it can be compared as mathematics. Raises `BadReference`, and `Unjudged` for what takes long."""
    text = text_of(reference)
    if quantity(peeled(plain(text))) is None:  # most are plain numbers, which need no library
        objection = sandbox("lightrft.rewards.answers.math_answers").ask("check", text, what="reading the reference")
        if objection:
            raise BadReference(f"the reference {_shown(text)} {objection}")
    return text


def spellings(reference: Any) -> set[str]:
    """The texts that are this reference: 72.0, which is what a table makes of 72 next to empty cells, is 72 too."""
    text = text_of(reference).strip()
    whole = not isinstance(reference, str) and float(reference).is_integer() and text.endswith(".0")
    return {text, text.removesuffix(".0")} if whole else {text}


def objection(read: Any, reference: Any) -> str | None:
    """Why `read`, one of the functions above, cannot use the reference."""
    try:
        read(reference)
    except BadReference as reason:
        return str(reason)
    except Unjudged as reason:
        return f"the reference {_shown(reference)} cannot be read: {reason}"
    return None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
