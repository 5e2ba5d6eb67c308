"""A reward that carries no information: the right ones, dealt to the wrong samples. The quickstart's control.

As many samples are rewarded as with `last_number`, so the mean, and with it an evaluation's accuracy, is the true one.
A policy that still learns from this learns from something other than its answers being right.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

from lightrft.rewards.rules import last_number


def shuffled_last_number(responses: Sequence[str], references: Sequence[Any], **_: Any) -> list[float]:
    """The values of `last_number`, permuted over the batch in a way that only the batch's texts decide."""
    if len(responses) < 2:
        raise ValueError("one sample alone cannot be shuffled; this reward needs a whole batch")
    rewards = [last_number(response, reference) for response, reference in zip(responses, references, strict=True)]
    digest = hashlib.sha256("\x00".join(responses).encode()).hexdigest()
    random.Random(digest).shuffle(rewards)
    return rewards
