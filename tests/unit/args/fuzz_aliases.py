"""What the older switches mean, and where that contradicts what stands beside them.

--eps_clip is both clips, --no-use_clip_higher makes the upper clip the lower one, whatever that comes from,
--use_gspo and --use_cpg_loss are estimators, and their --no- forms say that it is not this one. null is left unset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fuzz_surface import fields
from fuzz_truth import ESTIMATORS, Fault, Good

SWITCHES = {"use_gspo": "gspo", "use_cpg_loss": "cpgd"}
DECIDE_THE_LOWER_CLIP = {"clip_range", "eps_clip", "advantage_estimator", *SWITCHES}


def aliases(settings: Sequence[Good], faults: Sequence[Fault]) -> tuple[list[Good], list[Fault]]:
    """The settings that older switches bring, and their contradictions; what is broken says nothing."""
    broken = {name for fault in faults for name in fault.flags}
    last = {entry.flag: entry for entry in settings if entry.flag not in broken}
    meant = [*_estimators(last), *_clips(last)]
    if not broken & DECIDE_THE_LOWER_CLIP:
        meant += _higher(last, meant)
    return meant, [*_contradictions(last, meant), *_denials(last, meant)]


def _from(entry: Good, flag: str, value: Any) -> Good:
    return Good(flag, value, f"{entry.where}, --{entry.flag}")


def _estimators(last: dict[str, Good]) -> Iterator[Good]:
    for switch, name in SWITCHES.items():
        if switch in last and last[switch].value is True:
            yield _from(last[switch], "advantage_estimator", name)


def _clips(last: dict[str, Good]) -> Iterator[Good]:
    entry = last.get("eps_clip")
    if entry is not None and entry.value is not None:
        yield from (_from(entry, flag, entry.value) for flag in ("clip_range", "clip_range_higher"))


def _higher(last: dict[str, Good], meant: list[Good]) -> list[Good]:
    entry = last.get("use_clip_higher")
    if entry is None or entry.value is not False:
        return []
    chosen = {**{flag: good.value for flag, good in last.items()}, **{good.flag: good.value for good in meant}}
    own = ESTIMATORS[chosen.get("advantage_estimator", "group_norm")].own
    lower = chosen.get("clip_range", own.get("clip_range", fields()["clip_range"].default))
    return [_from(entry, "clip_range_higher", lower)]


def _claims(flag: str, last: dict[str, Good], meant: list[Good]) -> list[Any]:
    typed = [last[flag].value] if flag in last else []
    return [*typed, *(good.value for good in meant if good.flag == flag)]


def _contradictions(last: dict[str, Good], meant: list[Good]) -> Iterator[Fault]:
    """What an upper clip has to be is unclear where the lower one or the estimator is contradicted already."""
    unclear = False
    for flag in ("advantage_estimator", "clip_range", "clip_range_higher"):
        claims = _claims(flag, last, meant)
        if len(set(claims)) > 1:
            sure = not (unclear and flag == "clip_range_higher")
            yield Fault(rf"--{flag} .* contradicts", (flag,), sure)
            yield from (Fault(rf"--{flag} .* contradicts", (flag,), sure=False) for _ in claims[2:])
            unclear = True


def _denials(last: dict[str, Good], meant: list[Good]) -> Iterator[Fault]:
    claims = _claims("advantage_estimator", last, meant)
    for switch, name in SWITCHES.items():
        if switch in last and last[switch].value is False and name in claims:
            yield Fault(f"--no-{switch} contradicts", (switch,), sure=len(set(claims)) == 1)
