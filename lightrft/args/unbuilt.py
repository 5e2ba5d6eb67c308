"""What the surface names and no part of the project does yet. Setting it is refused; it is never accepted and ignored.

A flag is on the list by being declared with `unbuilt(...)`; choices and abilities that are not flags stand here.
"""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.surface import FLAGS

UNBUILT: dict[str, str] = {flag.name: flag.record.unbuilt for flag in FLAGS.values() if flag.record.unbuilt}
_CHOICES = {
    "engines": ("engine_type", "vllm sglang"),
}
UNBUILT_CHOICES = {(flag, name): part for part, (flag, names) in _CHOICES.items() for name in names.split()}


def unbuilt_abilities(program: str) -> Iterator[str]:
    """What is refused whatever the flags are: one line each."""
    if program == "vision":
        yield "training of vision-language models is not built yet (vision); train.py trains text models"


def about_choice(flag: str, value: object) -> str | None:
    """Why a choice that is known and not there is refused; None for any other value."""
    part = UNBUILT_CHOICES.get((flag, str(value)))
    allowed = FLAGS[flag].record.allowed() or ()
    if part is None or value in allowed:
        return None
    return f"{value} is not built yet ({part}); use {' or '.join(map(str, allowed))}"
