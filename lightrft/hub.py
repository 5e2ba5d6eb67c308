"""Whether the Hugging Face hub answers, and which name a user may have meant."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from pathlib import Path

PATIENCE_S = 5.0  # for one answer; the hub library itself tries for most of a minute, once per file
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def out_of_reach() -> str | None:
    """Why nothing can be fetched, as the end of a sentence; None where the hub answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        name = next((switch for switch in SWITCHES if switch in os.environ), SWITCHES[0])
        return f"{name} is set, which allows only what is in the cache; unset it, or give a folder"
    return _no_answer(constants.ENDPOINT)


@cache
def _no_answer(endpoint: str) -> str | None:
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=PATIENCE_S)
    except Exception as error:  # requests' or httpx's, as the version has it
        reason = " ".join(str(error).split()) or type(error).__name__
        return f"{endpoint} cannot be reached ({reason[:120]}); give a folder, or mend the connection"
    return None


@contextmanager
def offline_where_unreachable() -> Iterator[None]:
    """Inside, libraries without an option for it ask the cache alone where the hub does not answer."""
    import datasets.config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    if out_of_reach() is not None:
        constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def is_cached(name: str, file: str, cache_dir: str | None, kind: str = "model") -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file, cache_dir=cache_dir, repo_type=kind), str)


def near(path: Path, holding: str = "") -> str:
    """`; is it <path>?` for the entry of the same folder whose name is most like it; else nothing."""
    entry = nearest(path, holding)
    return f"; is it {entry}?" if entry else ""


def nearest(path: Path, holding: str = "", cutoff: float = 0.7) -> Path | None:
    """The entry of the same folder with the same letters in another order, or else the name that is most like it.

    holding: only folders with a file of that name. cutoff: difflib's ratio that a name needs, at least.
    """
    try:
        names = [entry.name for entry in path.parent.iterdir() if not holding or (entry / holding).is_file()]
    except OSError:
        return None
    same_letters = [name for name in names if sorted(name.lower()) == sorted(path.name.lower())]
    close = same_letters or get_close_matches(path.name, names, n=1, cutoff=cutoff)
    return path.parent / close[0] if close else None
