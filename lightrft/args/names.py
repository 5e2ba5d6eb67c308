"""What to say about a name, or a choice, that is none of ours."""

from __future__ import annotations

import difflib
import re

from lightrft.args.peers import PEERS, ROWS, Peer, peer_of
from lightrft.args.surface import FLAGS, NAMES
from lightrft.args.unbuilt import UNBUILT

DOTTED = re.compile(r"[+~]{0,2}(?P<path>[A-Za-z_]\w*(\.[A-Za-z_]\w*)+)=(?P<value>.*)", re.DOTALL)
THERE = re.compile(r"\bthere\b(?! (?:is|are)\b)")  # in the other trainer
UNSET = ("none", "null")
OFF = ("false", "0", *UNSET)
MOST = 3  # names proposed at once
TYPO = 0.9  # so alike, difflib's ratio, that one is the other misspelt

VALUES = {  # others' words for our choices, by flag and word
    (row.flag, row.name.partition("=")[2]): row.value
    for row in PEERS
    if row.name.startswith(f"{row.flag}=") and not row.note
}


def about_dotted(word: str) -> str | None:
    """Why `a.b.c=value` is refused, with the flag that means the same; None for any other word."""
    match = DOTTED.fullmatch(word)
    if match is None:
        return None
    path, value = match["path"], match["value"]
    last, row = path.rpartition(".")[2], peer_of(path, value)
    if row is not None:
        return f"{word}: {_advice(row, value, '--')}"
    if last in NAMES:
        return f"{word}: use {_as_flag(NAMES[last], value, '--')}"
    return f"{word} is a dotted override, and there are none here{_nearest(last, '--')}"


def about_unknown(name: str, dashes: str = "--", value: str | None = None, group: str = "") -> str:
    """`name` without dashes; `dashes` as the user writes them, none in YAML, where it may stand under a `group`."""
    said, here = dashes + (name if name.isprintable() else repr(name)), dashes and "--"
    bare = name.removeprefix("no-")
    row = peer_of(f"{group}.{name}" if group else bare, "false" if bare != name else value)
    if row is not None and bare.replace("-", "_") not in NAMES:
        return f"{said} is not a flag; {_advice(row, value, here, shown=False)}"
    last = name.rpartition(".")[2]
    if last != name and last in NAMES:
        return f"{said} is not a flag; use {here}{NAMES[last]}"
    return f"{said} is not a flag{_nearest(last, here)}"


def about_other_meaning(dotted: str, flag: str, value: str | None) -> str | None:
    """What to use for `group.key` of another trainer whose key is a `flag` of ours with another meaning; else None."""
    row = ROWS.get(dotted.lower())
    if row is None or NAMES.get(row.flag) == flag:
        return None
    return f"{dotted} of {row.trainer} is not {flag} here; {_advice(row, value, '', shown=False)}"


def about_value(flag: str, value: object) -> str | None:
    """What to choose in place of a value that only others have; None for any other value."""
    row = ROWS.get(f"{flag}={str(value).lower()}")
    what = "is not one of its choices" if isinstance(value, str) else "is out of bounds"
    return f"{value} {what}; {_advice(row, str(value), '--')}" if row else None


def _advice(row: Peer, value: str | None, dashes: str, *, shown: bool = True) -> str:
    """What to use instead; a value that is passed on as it is appears where it is to be `shown`."""
    known = ROWS.get(f"{row.flag}={value.lower()}") if value and row.ours and not row.value else None
    if known is not None:
        return _advice(known, value, dashes)
    if not row.ours:
        return row.note
    if row.value:
        use = f"use {dashes}{row.flag}{' ' if dashes else ': '}{row.value}"
    elif value is not None and value.lower() in UNSET and not FLAGS[NAMES[row.flag]].is_switch:
        use = f"leave {dashes}{row.flag} out"
    else:
        use = f"use {_as_flag(row.flag, value if shown else None, dashes)}"
    later = "not built yet" if NAMES[row.flag] in UNBUILT else ""
    notes = [note for note in (_by_name(row), later) if note]
    return f"{use} ({'; '.join(notes)})" if notes else use


def _by_name(row: Peer) -> str:
    """The note, which stands alone here and in its trainer's section on the page: "there" needs a name."""
    return THERE.sub(f"in {row.trainer}", row.note)


def _as_flag(flag: str, value: str | None, dashes: str) -> str:
    if FLAGS[NAMES[flag]].is_switch and dashes:
        return f"--no-{flag}" if value is not None and value.lower() in OFF else f"--{flag}"
    return f"{dashes}{flag} {value}" if value and dashes else f"{dashes}{flag}"


def _nearest(name: str, dashes: str) -> str:
    """Abbreviations are not taken, but what they may stand for is proposed."""
    switches = [f"no-{flag.name}" for flag in FLAGS.values() if flag.is_switch and dashes]
    names, parts = [*NAMES, *switches], name.replace("-", "_").split("_")
    begun = sorted((known for known in NAMES if len(name) > 1 and known.startswith(name)), key=len)
    within = [known for known in NAMES if set(parts) <= set(known.split("_"))]
    ended = sorted((known for known in NAMES if name.endswith(f"_{known}")), key=len, reverse=True)
    close = difflib.get_close_matches(name, names, n=1)
    typo = difflib.get_close_matches(name, names, n=1, cutoff=TYPO)
    proposed = begun[:MOST] or typo or ended[:1] or close or within[:MOST]
    return f"; nearest: {' or '.join(dashes + known for known in proposed)}" if proposed else "; --help lists them all"
