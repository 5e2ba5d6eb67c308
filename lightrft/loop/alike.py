"""Whether all processes of a run were given the same: one that has other flags or files would train another model."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lightrft.args import Args
from lightrft.args.estimators import own_estimator
from lightrft.args.show import as_dict
from lightrft.errors import Refused
from lightrft.models.content import contents
from lightrft.models.given import read_given
from lightrft.ranks.base import Ranks
from lightrft.types import Prompt


def check_alike(facts: Mapping[str, Any], ranks: Ranks) -> None:
    """Raises `Refused`, on all ranks, where a fact is not the same on all of them. facts: under names for the user."""
    told = ranks.gather([dict(facts)])
    for name in facts:
        for rank, other in enumerate(told):
            if other.get(name) != told[0].get(name):
                raise Refused(
                    f"{name} is {told[0].get(name)} on rank 0 and {other.get(name)} on rank {rank}; start every "
                    "process with the same flags and files"
                )


def flags(args: Args) -> dict[str, Any]:
    return {f"--{name}": entry["value"] for name, entry in as_dict(args).items()}


def files(args: Args, prompts: Iterable[Prompt], held_out: Iterable[Prompt]) -> dict[str, Any]:
    """Digests of what is trained on, by which code, and from which weights."""
    rewards = {name: Path(name) for name in (entry.rpartition(":")[0] for entry in args.rewards.reward_fn) if name}
    own = own_estimator(args.algorithm.advantage_estimator)
    code = {**rewards, **({str(own): Path(own)} if own else {})}
    return {
        "what --prompt_data holds": _digest(_of_prompts(prompts)),
        "what --eval_data holds": _digest(_of_prompts(held_out)),
        **{f"the code of {name}": _digest([path.read_bytes()]) for name, path in code.items()},
        "the configuration of --pretrain": _digest(read_given(args.model).files.values()),
        **{f"the hash of what --{flag} holds": value[:12] for flag, value in contents(args.model).items()},
    }


def _digest(parts: Iterable[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:12]


def _of_prompts(prompts: Iterable[Prompt]) -> Iterator[bytes]:
    return (repr((prompt.id, prompt.token_ids, prompt.reference)).encode(errors="replace") for prompt in prompts)
