"""What holds of a configuration, asked for by a positive name."""

from __future__ import annotations

from lightrft.args.batching import optimizer_steps
from lightrft.args.estimators import Declared, declared
from lightrft.args.groups.model import ModelArgs
from lightrft.args.surface import Args

LORA_TIMES = 10  # of full training's learning rate: adapters, which change little, are trained with more


def estimator(args: Args) -> Declared:
    """What the file of `--advantage_estimator` declares."""
    return declared(args.algorithm.advantage_estimator)


def has_critic(args: Args) -> bool:
    return "critic" in estimator(args).needs


def has_adapters(model: ModelArgs) -> bool:
    """Whether the policy trains adapters in the place of its weights."""
    return model.lora_rank > 0 or model.lora_path is not None


def adapters_flag(model: ModelArgs) -> str:
    """The flag that asks for adapters, with its value."""
    return f"--lora_rank {model.lora_rank}" if model.lora_path is None else f"--lora_path {model.lora_path}"


def has_4_bits(model: ModelArgs) -> bool:
    """Whether the weights that adapters are added to are kept in 4 bits."""
    return model.bits == 4


def four_bits_flag(model: ModelArgs) -> str:
    """The flag that asks for them: of the two that can, the one that is set."""
    return "--load_in_4bit" if model.load_in_4bit else "--bits 4"


def policy_learning_rate(args: Args) -> float:
    """Of adapters: --lora_learning_rate, else what was set as the policy's, else ten times the default of that."""
    m, rate = args.model, args.training.actor_learning_rate
    if not has_adapters(m):
        return rate
    own = rate if args.typed("actor_learning_rate") else float(f"{LORA_TIMES * rate:.12g}")
    return own if m.lora_learning_rate is None else m.lora_learning_rate


def compares_samples(args: Args) -> bool:
    """Whether an advantage is a sample's reward beside those of the same prompt's other samples."""
    return "group" in estimator(args).needs


def is_off_policy(args: Args) -> bool:
    """Whether the ratio of the current to the old policy leaves 1: there is a second optimizer step."""
    return optimizer_steps(args) > 1


def has_kl(args: Args) -> bool:
    """Whether there is a KL term, or a drift in its place."""
    return args.algorithm.init_kl_coef > 0


def kl_place(args: Args) -> str:
    """Where the KL term stands: "drift", "loss", "reward" or "off"."""
    return estimator(args).kl_place(args.algorithm.use_kl_loss)


def kl_is_to_reference(args: Args) -> bool:
    """Also beside a drift, with --use_kl_loss."""
    return not estimator(args).drifts or bool(args.algorithm.use_kl_loss)


def kl_moves(args: Args) -> bool:
    """Whether it can be other than 0: a drift is exactly 0 where the ratio is 1 (algorithms S3.4)."""
    return is_off_policy(args) or not estimator(args).drifts


def kl_adapts(args: Args) -> bool:
    """Whether its coefficient follows --kl_target (algorithms S6.4)."""
    return has_kl(args) and kl_moves(args) and bool(args.algorithm.kl_target)


def needs_entropy(args: Args) -> bool:
    """Whether tokens are chosen by their entropy."""
    return 0 < args.algorithm.high_entropy_token_ratio < 1


def has_filter(args: Args) -> bool:
    """Whether sampling leaves unlikely tokens out."""
    s = args.sampling
    return s.top_p < 1.0 or s.top_k != -1 or s.min_p > 0.0


def replays_masks(args: Args) -> bool:
    """Whether what filters keep of the vocabulary is all that the trainer's log-probabilities are of."""
    return args.engine.replay_sampling_mask and has_filter(args)


def scores_before_learning(args: Args) -> bool:
    """Whether any model has to score the samples of a rollout step, other than those that the update scores itself."""
    return (has_kl(args) and kl_is_to_reference(args)) or is_off_policy(args) or needs_entropy(args)


def ref_shard_size(args: Args, processes: int) -> int:
    """Processes that share one copy of the reference: as many as share the policy's, unless a flag says otherwise."""
    d = args.distributed
    return d.ref_shard_size or d.hybrid_shard_size or (processes if shards_weights(args) else 1)


def shards_weights(args: Args) -> bool:
    """Whether the policy's weights themselves are sharded, and not its gradients or optimizer's state alone."""
    return args.distributed.fsdp or args.distributed.zero_stage == 3


def holds_all(args: Args, processes: int, compute: str) -> bool:
    """Whether one process has all of the policy, as it is computed with, on its device: there is nothing to share out,
    round or move, so no library does.

    ZeRO-3 stays DeepSpeed's: nobody has it by default, and on one process it is there to try out what several do, with
    weights that are fetched layer by layer. FSDP2 is tried out so with --bf16.
    """
    d, on_host = args.distributed, args.memory.adam_offload or args.distributed.fsdp_cpu_offload
    return processes == 1 and compute == "fp32" and (d.fsdp or d.zero_stage < 3) and not on_host


def gathers_once_a_step(args: Args, processes: int) -> bool:
    """Whether every process holds whole weights and gradients for the length of an optimizer step."""
    return processes > 1 and args.distributed.fsdp and args.distributed.fsdp_reshard == "step"


def runs_several(args: Args) -> bool:
    """Whether a training pass may have several samples."""
    return args.batch.micro_train_batch_size > 1 or args.batch.max_tokens_per_micro_batch is not None


def flag_of_segments(args: Args) -> str | None:
    """The flag that asks for rows that hold several sequences."""
    flags = {"--packing_samples": args.memory.packing_samples, "--share_prompts": args.memory.share_prompts}
    return next((flag for flag, given in flags.items() if given), None)


def may_share_prompts(args: Args) -> bool:
    """Whether rows that share their prompt are laid side by side where the model allows it and it pays."""
    several = runs_several(args) or scores_before_learning(args)
    return several and args.memory.share_prompts is not False
