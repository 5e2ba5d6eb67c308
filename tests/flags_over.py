"""A base's flags with others in their place: a flag that is given twice would be told."""

from __future__ import annotations

import re

FLAG = re.compile(r"(?:^|\s)--(?:no-)?(\w+)")


def flags_over(base: str, flags: str) -> list[str]:
    """The words of `base` without the flags that `flags` gives, and then those of `flags`."""
    given = set(FLAG.findall(flags))
    parts = re.split(r"\s+(?=--)", base.strip())
    kept = [part for part in parts if not (named := FLAG.match(part)) or named[1] not in given]
    return [*" ".join(kept).split(), *flags.split()]
