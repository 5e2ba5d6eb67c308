"""What can be refused of a run's models as soon as their configurations are known: no weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.args import Args
from lightrft.args.conditions import flag_of_segments, has_critic, may_share_prompts
from lightrft.args.hardware import processes_of
from lightrft.models.critic import check_critic, critic_name, critics_kernel, described_critic
from lightrft.models.freezing import choose_what_trains, is_asked_for
from lightrft.models.load import attention_kernel, described_model
from lightrft.models.output_head import check_described_head
from lightrft.models.recompute import layers_to_recompute
from lightrft.models.segment_check import takes_segments
from lightrft.models.sequence_checks import check_sequences
from lightrft.models.sequence_parallel import NAME as OVER_RANKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs


def check_models(args: Args, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a row of the policy may hold several sequences, where that is asked for or open."""
    if has_critic(args):
        check_critic(args.model, tokenizer)
    if (sp_size := args.distributed.sp_size) > 1:
        check_sequences(args.model, sp_size, processes_of(args), critic=has_critic(args))
    _check_computed_twice(args)
    if args.memory.fused_linear_logprob:
        _check_head(args.model)
    return _takes_segments(args)


def _check_computed_twice(args: Args) -> None:
    """The models themselves are asked again. Processes that share sequences replace attention by one that is kept."""
    if not args.distributed.gradient_checkpointing:
        return
    once = args.memory.recompute_granularity == "selective" and args.distributed.sp_size == 1
    what, model = f"--pretrain {args.model.pretrain}", described_model(args.model, with_attention=once)
    layers_to_recompute(model, what, attention_once=once)
    if _has_own_critic(args):
        model = described_critic(args.model, with_attention=once)
        layers_to_recompute(model, critic_name(args.model), attention_once=once)


def _check_head(args: ModelArgs) -> None:
    """With its adapters, where it gets some."""
    model = described_model(args)
    if is_asked_for(args):
        choose_what_trains(model, args)
    check_described_head(model, f"--pretrain {args.pretrain}")


def _takes_segments(args: Args) -> bool:
    """The models themselves are asked again: a critic may share prompts where its policy does not, and the other way
    round."""
    flag, over = flag_of_segments(args), OVER_RANKS if args.distributed.sp_size > 1 else None  # in attention's place
    if flag is None and not may_share_prompts(args):
        return False
    what, model = f"--pretrain {args.model.pretrain}", described_model(args.model)
    found = takes_segments(model, what, flag, over or attention_kernel(args.model))
    if flag is not None and _has_own_critic(args):
        takes_segments(described_critic(args.model), critic_name(args.model), flag, over or critics_kernel(args.model))
    return found


def _has_own_critic(args: Args) -> bool:
    return has_critic(args) and args.model.critic_pretrain is not None
