"""Times of day and dates: they are compared as they are written, and never computed with."""

from __future__ import annotations

import re

CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?\s?(?:([ap])\.?m\.?)?|([0-9]{1,2})\s?([ap])\.?m\.?", re.I)
DAY = re.compile(r"([0-9]{4})([-/.])([0-9]{1,2})\2([0-9]{1,2})|([0-9]{1,2})([/.])([0-9]{1,2})\6([0-9]{2,4})")


def moment(text: str) -> tuple[str, ...] | None:
    """The numbers that a time of day (12:30, 5 p.m.) or a date (2024-02-29) is written with; None for what is none."""
    text = re.sub(r"\\text ?\{ ?([^{}]{1,9})\}", r" \1", text).replace("  ", " ")
    match = CLOCK.fullmatch(text) or DAY.fullmatch(text)
    return match and tuple((group or "").lstrip("0").lower() for group in match.groups())
