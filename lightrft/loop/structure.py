"""What the tensors of a checkpoint depend on: flags, and the weights beside adapters. A run that goes on must have the
same; whether it has is asked before anything is loaded."""

from __future__ import annotations

from typing import Any

from lightrft.args import Args
from lightrft.args.conditions import has_4_bits, has_adapters, has_critic
from lightrft.errors import Damaged
from lightrft.loop.checkpoint_folder import CheckpointFolder
from lightrft.loop.origin import origin
from lightrft.loop.state_file import check_as_it_was
from lightrft.models.content import contents

ALWAYS = ("optimizer", "lora_rank", "lora_path")
OF_LORA = ("lora_alpha", "target_modules", "lora_bias", "bits")
OF_4_BITS = ("double_quant", "quant_type")


def structure_of(args: Args) -> dict[str, Any]:
    """The flags, as run.json keeps them."""
    flags = (*ALWAYS, *(["value_head_prefix"] if has_critic(args) else []))
    flags += OF_LORA if has_adapters(args.model) else ()
    flags += OF_4_BITS if has_4_bits(args.model) else ()
    values = {flag: args.value(flag) for flag in flags}
    return {flag: list(value) if isinstance(value, tuple) else value for flag, value in values.items()}


def contents_of(args: Args) -> dict[str, str]:
    """The weights, by flag; {} where a checkpoint holds all that trains."""
    return contents(args.model) if has_adapters(args.model) else {}


def check_resumed(args: Args) -> None:
    """Raises `Refused` where the newest checkpoint is of other flags or weights. A fault of the checkpoint itself is
    found, and told, when it is loaded."""
    place = origin(args)
    found = place.candidates(CheckpointFolder(place.folder, 1, 1).newest_first())
    if not args.checkpoint.load_checkpoint or not found:
        return
    try:
        check_as_it_was(found[0][1], structure_of(args), contents_of(args))
    except (Damaged, OSError, ValueError, KeyError, TypeError):
        return
