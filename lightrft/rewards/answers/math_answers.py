r"""Whether an answer equals the reference as mathematics: numbers exactly, the rest through the math-verify library.

`judge` works in the calling process and may take for ever (`9**9**9**9`); the rules ask it in the sandbox.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from fractions import Fraction

from lightrft.rewards.answers.comparison import same
from lightrft.rewards.answers.extraction import in_object, last_box
from lightrft.rewards.answers.meaning import meaning, meaning_of_prose
from lightrft.rewards.answers.numbers import Number
from lightrft.rewards.answers.options import option, stated_letter
from lightrft.rewards.answers.prose import peeled
from lightrft.rewards.answers.quantities import Quantity
from lightrft.rewards.answers.typography import plain

MOST_CHARACTERS = 10_000  # from the end of a response, in which the answer is looked for where no box shows it


def load() -> None:
    import math_verify  # noqa: F401  # now, outside of the first answer's time

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that we took its limit away


def judge(answer: str, reference: str, boxed_only: bool) -> float:
    r"""1.0 if the answer of a response equals the reference, else 0.0.

    What stands in the last `\boxed{}` counts. Without a box the whole text is read, unless `boxed_only`: what follows
    "answer is", else the last expression between dollars or the last plain number, whichever comes last. Of a JSON
    object its answer is read. A text that holds no mathematics is wrong. Raises `ValueError` for a reference that holds
    none, and whatever the comparison raises.
    """
    expected = _expected(reference)
    if option(expected) is None and meaning(expected) is None:
        raise ValueError(f"the reference {reference[:80]!r} {check(reference)}")
    box = last_box(answer)
    if (box is None and boxed_only) or len(box or "") > MOST_CHARACTERS:
        return 0.0
    shown = answer[-MOST_CHARACTERS:] if box is None else box
    inner = in_object(shown)
    return float(_equal(expected, plain(inner or shown), in_prose=box is None and not inner))


def check(reference: str) -> str | None:
    """Why nothing can be compared with this reference. One that cannot be compared in time shows here too."""
    text = _expected(reference)
    content = meaning(text)
    if text.lower() == "nan" or (option(text) is None and content is None):  # nan is what a table writes for nothing
        return "cannot be read as mathematics; LaTeX or a number works"
    with suppress(Exception):  # only how long it takes is of interest
        same(content, Quantity(Number(Fraction(0))))
    return None


def _expected(reference: str) -> str:
    box = last_box(reference)
    return peeled(plain(reference if box is None else box))


def _equal(expected: str, text: str, in_prose: bool) -> bool:
    """Letters of a multiple choice are compared first, then what they stand for."""
    answer = peeled(text)
    asked, given = option(expected), option(answer)
    letter = given.letter if given else stated_letter(text) if in_prose else None
    if asked and letter:
        contents = [asked.content, given.content if given else ""]
        return asked.letter == letter and (not all(contents) or same(*map(meaning, contents)))
    if asked and asked.content:
        expected = asked.content
    if given and given.content:
        answer, in_prose = given.content, False
    return same(meaning(expected), meaning_of_prose(answer) if in_prose else meaning(answer))
