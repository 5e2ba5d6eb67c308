"""Whether processes can share the sequences of a model (`--sp_size`): what its configuration says, before it is loaded,
and whether the parts are the whole, once it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.args.batching import around
from lightrft.errors import Refused, RunFailed, error_text
from lightrft.models import vision
from lightrft.models.critic import critic_name, described_critic
from lightrft.models.load import described_model
from lightrft.models.output_head import head_on
from lightrft.models.packing import Layout
from lightrft.models.reach import reach
from lightrft.models.token_model import PreparedModel

if TYPE_CHECKING:
    from lightrft.args.groups.model import ModelArgs

BY_LENGTH = ("dynamic", "longrope")  # rotary positions that depend on how long the longest row is
PART = 4  # tokens of each part of the row that is tried
BOUNDS = {torch.bfloat16: 0.1, torch.float16: 0.02}  # of |difference| / |hidden states|; 1e-3 in finer numbers


def check_sequences(args: ModelArgs, sp_size: int, processes: int, *, critic: bool) -> None:
    """Refuses a policy, and a `critic` of its own, whose sequences so many processes cannot share."""
    models = {f"--pretrain {args.pretrain}": described_model(args)}
    if critic and args.critic_pretrain is not None:
        models[critic_name(args)] = described_critic(args)
    heads = {name: model.config.get_text_config().num_attention_heads for name, model in models.items()}
    for name, model in models.items():
        fault = _fault(model, _rounded(args.prompt_max_len + args.max_new_tokens, sp_size))
        if fault is not None:
            raise Refused(f"--sp_size {sp_size}: {name} {fault}; use --sp_size 1")
        if heads[name] % sp_size:
            common = math.gcd(processes, *heads.values())
            legal = around(sp_size, [size for size in range(1, common + 1) if common % size == 0])
            raise Refused(
                f"--sp_size {sp_size} does not divide the {heads[name]} attention heads of {name}; "
                f"use --sp_size {' or '.join(map(str, legal))}"
            )


def _rounded(length: int, sp_size: int) -> int:
    return -(-length // sp_size) * sp_size


def _fault(model: Any, longest: int) -> str | None:
    config = model.config.get_text_config()
    if vision.sees(model.config):
        return f"({model.config.model_type}) reads images, which processes cannot share"
    if not (model._supports_sdpa and model._supports_attention_backend):
        return f"({config.model_type}) has an attention that cannot be replaced by one over several processes"
    sees, stretched = reach(config), _stretched_from(config)
    if not sees:
        return f"({config.model_type}) has layers other than attention that look back"
    if sees < longest:
        return f"has layers that see {sees} tokens, and rows have up to {longest}"
    if stretched < longest:
        return f"scales its positions by the row's length beyond {stretched} tokens, and rows have up to {longest}"
    return None


def _stretched_from(config: Any) -> float:
    """The length from which on rotary positions depend on the length of a row; inf = none."""
    own = getattr(config, "rope_parameters", None) or {}
    ropes = [each for each in (own, *own.values()) if isinstance(each, dict)]
    lengths = [
        each.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        or config.max_position_embeddings
        for each in ropes
        if each.get("rope_type") in BY_LENGTH
    ]
    return min(lengths, default=math.inf)


@torch.no_grad()
def check_parts(model: PreparedModel, name: str) -> None:
    """Refuses a model whose parts of a row, each run by its process, are not the row as a whole: one that does not hand
    on what attention is told, that takes no positions, or in which something other than attention looks back."""
    ranks = model.sequence_ranks
    if ranks is None:
        return
    vocabulary = model.handle.model.config.get_text_config().vocab_size
    device = ranks.device
    ids = torch.arange(PART * ranks.size, device=device)[None] % vocabulary
    layout = Layout({"input_ids": ids}, ids.new_zeros(0))
    try:
        whole = hidden_of(model, layout.inputs)
        part = hidden_of(model, {**layout.part(ranks.rank, ranks.size).inputs, "sequence_ranks": ranks})
    except (Refused, RunFailed, torch.OutOfMemoryError):
        raise
    except Exception as error:  # what a model's own code raises when it is not called as it wants to be
        raise Refused(f"--sp_size {ranks.size}: {name}: {error_text(error, most=200)}; use --sp_size 1") from error
    wanted = whole[:, PART * ranks.rank : PART * (ranks.rank + 1)]
    off = float(ranks.total((part - wanted).double().norm() / wanted.double().norm()))
    if off > BOUNDS.get(part.dtype, 1e-3):  # not NaN: a model that is not finite is reported by the step that meets it
        raise Refused(
            f"--sp_size {ranks.size}: {name}: its parts of a row are off the whole by {off:.2g} of it, as if no token "
            "saw those of other processes; use --sp_size 1"
        )


def hidden_of(model: PreparedModel, inputs: dict[str, Any]) -> Tensor:
    """What the head is given, [1, T, H]: it may have weights of 0."""
    seen: list[Tensor] = []

    def select(hidden: Tensor) -> Tensor:
        seen.append(hidden)
        return hidden

    with head_on(model.handle.model, select):
        model.handle.module(**inputs, use_cache=False)
    return seen[0]
