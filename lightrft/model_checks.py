"""What can be refused of a run's models as soon as their configurations are known: no weights are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.args import Args
from lightrft.args.conditions import flag_of_segments, has_critic, may_share_prompts
from lightrft.args.hardware import processes_of
from lightrft.models.critic import check_critic, critic_args
from lightrft.models.freezing import choose_what_trains, is_asked_for
from lightrft.models.load import attention_kernel, described_backbone, described_model
from lightrft.models.output_head import check_described_head
from lightrft.models.recompute import layers_to_recompute
from lightrft.models.segment_check import takes_segments
from lightrft.models.sequence_checks import check_sequences
from lightrft.models.sequence_parallel import NAME as OVER_RANKS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.args.groups.model import ModelArgs


def check_models(args: Args, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a row may hold several sequences, of the policy's or the critic's, where that is asked for or open."""
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
    if has_critic(args) and (other := args.model.critic_pretrain) is not None:
        model = described_backbone(critic_args(args.model), with_attention=once)
        layers_to_recompute(model, f"the critic {other}", attention_once=once)


def _check_head(args: ModelArgs) -> None:
    """With its adapters, where it gets some."""
    model = described_model(args)
    if is_asked_for(args):
        choose_what_trains(model, args)
    check_described_head(model, f"--pretrain {args.pretrain}")


def _takes_segments(args: Args) -> bool:
    """The models themselves are asked again."""
    flag, models = flag_of_segments(args), {f"--pretrain {args.model.pretrain}": args.model}
    if flag is None and not may_share_prompts(args):
        return False
    if has_critic(args) and args.model.critic_pretrain is not None:
        models[f"the critic {args.model.critic_pretrain}"] = critic_args(args.model)
    possible = [takes_segments(described_model(own), name, flag, _kernel(args, own)) for name, own in models.items()]
    return any(possible)


def _kernel(args: Args, model: ModelArgs) -> str:
    """Processes that share sequences replace attention by one that takes segments."""
    return OVER_RANKS if args.distributed.sp_size > 1 else attention_kernel(model)
