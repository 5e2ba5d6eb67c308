"""What the surface names and no part of the project does yet. Setting it is refused; it is never accepted and ignored.

A flag is on the list by being declared with `unbuilt(...)`; abilities that are not flags stand here.
"""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.surface import FLAGS

UNBUILT: dict[str, str] = {flag.name: flag.record.unbuilt for flag in FLAGS.values() if flag.record.unbuilt}


def unbuilt_abilities(program: str) -> Iterator[str]:
    """What is refused whatever the flags are: one line each."""
    if program == "vision":
        yield "training of vision-language models is not built yet (vision); train.py trains text models"
