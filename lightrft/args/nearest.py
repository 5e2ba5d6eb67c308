"""The known word that a mistyped one is nearest to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: object, known: Iterable[str]) -> str:
    """ "; nearest: <word>", the end of a line; nothing where none is near."""
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; nearest: {close[0]}" if close else ""
