"""Which of the engine's tensors are not what it was sent, by their fingerprints, and what that looks like."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from lightrft.models.fingerprint import MODULUS
from lightrft.sync.alarm import Finding

Sent = Mapping[str, int]  # by the trainer's names
Held = Mapping[tuple[str, ...], int]  # by the names of which the engine's tensor is made

WRONG_CHECKPOINT, TIED_HEAD, STALE, PRECISION = "wrong checkpoint reloaded", "tied head", "stale tensor", "precision"
NO_HEAD = "it kept the output head of before, which its model ties to the embeddings"


def differing(sent: Sent, held: Held) -> list[tuple[str, ...]]:
    """Those of the engine's tensors that are not the sum of what was sent under their names."""
    return [names for names, number in held.items() if number != _together(sent, names)]


def stale(
    sent: Sent, held: Held, *, started: Held, copies: Collection[str], others: Mapping[str, Sent]
) -> Finding | None:
    """What is wrong with what the engine holds; None where it holds all that it was sent.

    started: what it held before it was sent anything; copies: the further names of tied tensors; others: what the same
    tensors are in other precisions, by their names, where somebody asks.
    """
    wrong = differing(sent, held)
    if not wrong:
        return None
    most = 2 * len(wrong) > len(held)
    count = f"{len(wrong)} of the engine's {len(held)} tensors are not those that it was sent"
    for precision, numbers in others.items():
        if most and not differing(numbers, {names: held[names] for names in wrong}):
            return Finding(PRECISION, f"{count}: it holds them in {precision}; check --engine_dtype")
    if most and all(held[names] == started.get(names) for names in wrong):
        text = f"{count}, but those that it was started with: it reads its own files again, or takes nothing"
        return Finding(WRONG_CHECKPOINT, f"{text}; {_remedy()}")
    if all(name in copies for names in wrong for name in names):
        return Finding(TIED_HEAD, f"{_list(wrong)} is not what the engine was sent: {NO_HEAD}; {_remedy()}")
    return Finding(STALE, f"{_list(wrong)}: {count}; {_remedy()}")


def _together(sent: Sent, names: tuple[str, ...]) -> int | None:
    """None where one of them was never sent: no tensor is that."""
    return sum(sent[name] for name in names) % MODULUS if all(name in sent for name in names) else None


def _list(wrong: list[tuple[str, ...]]) -> str:
    first = " + ".join(wrong[0])
    return first if len(wrong) == 1 else f"{first} and {len(wrong) - 1} more"


def _remedy() -> str:
    return "use a tested version of the engine, or --engine_type local"
