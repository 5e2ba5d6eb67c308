"""Flags that someone typed and that have no effect beside the others: each with what it needs to have one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightrft.args.conditions import (
    compares_samples,
    estimator,
    has_4_bits,
    has_adapters,
    has_critic,
    has_filter,
    has_kl,
    is_off_policy,
    kl_is_to_reference,
    kl_moves,
    runs_several,
    scores_before_learning,
)
from lightrft.args.groups.data import GENERATED, have_splits
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice
from lightrft.args.surface import FLAGS, Args


@dataclass(frozen=True)
class Need:
    """A condition, and the reason that is given where it does not hold; {seed} in it is the value of --seed."""

    holds: Callable[[Args], bool]
    otherwise: str


def given(flag: str) -> Need:
    return Need(lambda args: bool(args.value(flag)), f"there is no --{flag}")


def in_time(flag: str) -> Need:
    """What happens every so many steps needs a step at which it happens."""
    return Need(lambda args: not _is_late(args, args.value(flag) or 0), "--max_steps {max_steps} ends the run before")


def _is_late(args: Args, step: int) -> bool:
    return args.training.max_steps is not None and step > args.training.max_steps


def _late_step(args: Args) -> int | None:
    return next((step for step in args.logging.profile_steps if _is_late(args, step)), None)


def _has_rows(args: Args) -> bool:
    return not all(source.startswith(GENERATED) for source in (*args.data.prompt_data, *args.evaluation.eval_data))


def _splits(flag: str) -> Need:
    reason = f"every source of --{flag} is a file, and a file is one split ({GENERATED} and datasets have several)"
    return Need(lambda args: have_splits(args.value(flag)), reason)


RATIO = "there is one optimizer step per rollout step, so the ratio is exactly 1"
OFF_POLICY = Need(is_off_policy, RATIO)
LATER_VALUES = Need(is_off_policy, "there is one optimizer step per rollout step, so values are the old ones")
CRITIC = Need(has_critic, "--advantage_estimator {advantage_estimator} has no critic")
RETURNS = Need(
    lambda args: estimator(args).kl == "reward",
    "--advantage_estimator {advantage_estimator} has one advantage a response",
)
NO_KL = "--init_kl_coef is 0, so no KL is computed"
KL = Need(has_kl, NO_KL)
KL_IN_LOSS = Need(lambda args: has_kl(args) or not args.algorithm.use_kl_loss, NO_KL)
MOVING_KL = Need(kl_moves, RATIO)
MOVING_LOSS = Need(lambda args: kl_moves(args) or bool(args.algorithm.use_kl_loss), RATIO)
REFERENCE = Need(
    kl_is_to_reference,
    "--advantage_estimator {advantage_estimator} has a drift term in place of the KL to the reference",
)
DRIFT = Need(lambda args: estimator(args).drifts, "--advantage_estimator {advantage_estimator} has no drift term")
TARGET = Need(lambda args: bool(args.algorithm.kl_target), "there is no --kl_target, so the coefficient is fixed")
CORRECTION = Need(lambda args: args.algorithm.is_correction != "off", "--is_correction is off")
FILTER = Need(has_filter, "--top_p 1, --top_k -1 and --min_p 0 leave no token out")
SCHEDULE = Need(lambda args: args.sampling.temperature_schedule != "constant", "--temperature_schedule is constant")
MEAN = Need(
    lambda args: not compares_samples(args) or args.rewards.reward_clip > 0,
    "--advantage_estimator {advantage_estimator} takes each prompt's mean off, and there is no --reward_clip",
)
ADAM = Need(lambda args: args.training.optimizer == "adamw", "--optimizer {optimizer} has no such setting")
ROWS = Need(_has_rows, f"{GENERATED} has no rows")
LABEL = Need(lambda args: args.data.reference_key is None, "--reference_key names the reference's column")
EPISODES = Need(lambda args: args.training.max_steps is None, "--max_steps {max_steps} decides when training ends")
WARMUP = Need(
    lambda args: args.training.lr_warmup_steps is None, "--lr_warmup_steps {lr_warmup_steps} decides the warm-up"
)
DEEPSPEED = Need(lambda args: not args.distributed.fsdp, "--fsdp replaces DeepSpeed ZeRO")
STATE_ELSEWHERE = Need(lambda args: not args.distributed.fsdp_cpu_offload, "--fsdp_cpu_offload keeps all of it there")
REFERENCE_APART = Need(lambda args: not has_adapters(args.model), "the reference is the policy without its adapters")
REFERENCE_ELSEWHERE = Need(
    lambda args: not args.distributed.fsdp_cpu_offload, "--fsdp_cpu_offload keeps the reference there too"
)
OVERLAPS = Need(lambda args: not args.distributed.fsdp, "--fsdp overlaps communication by itself")
STATE = Need(
    lambda args: args.training.optimizer == "adamw" or not args.distributed.fsdp, "--optimizer {optimizer} has no state"
)
COMPANY = Need(
    lambda args: runs_several(args) or scores_before_learning(args),
    "--micro_train_batch_size 1 has no two samples of a prompt together",
)
SEVERAL = Need(
    lambda args: runs_several(args) or scores_before_learning(args),
    "--micro_train_batch_size 1 has no two samples in a pass",
)
SAMPLES = Need(
    lambda args: args.batch.max_tokens_per_micro_batch is None,
    "--max_tokens_per_micro_batch {max_tokens_per_micro_batch} decides how many samples make a micro-batch",
)
PROFILED = Need(lambda args: _late_step(args) is None, "--max_steps {max_steps} ends the run before step {late_step}")
ADAPTERS = Need(lambda args: has_adapters(args.model), "there is no --lora_rank")
FOUR_BITS = Need(lambda args: has_4_bits(args.model), "there is no --load_in_4bit")
NEW_ADAPTER = Need(lambda args: args.model.lora_path is None, "the adapter of --lora_path has its own")
OWN_RATE = Need(
    lambda args: not has_adapters(args.model) or args.model.lora_learning_rate is None,
    "--lora_learning_rate is the policy's",
)
LINES = Need(lambda args: not args.logging.quiet, "--quiet prints no line per step")

NEEDS: dict[str, tuple[Need, ...]] = {  # the first one that does not hold is the reason
    **dict.fromkeys(("clip_range", "clip_range_higher", "dual_clip", "eps_clip", "use_clip_higher"), (OFF_POLICY,)),
    **dict.fromkeys(("critic_pretrain", "freezing_actor_steps", "value_head_prefix"), (CRITIC,)),
    **dict.fromkeys(("critic_learning_rate", "lambd"), (CRITIC,)),
    **dict.fromkeys(("lora_alpha", "target_modules", "lora_bias"), (ADAPTERS, NEW_ADAPTER)),
    **dict.fromkeys(("lora_learning_rate", "lora_merge"), (ADAPTERS,)),
    "lora_rank": (NEW_ADAPTER,),
    **dict.fromkeys(("double_quant", "quant_type"), (FOUR_BITS,)),
    "actor_learning_rate": (OWN_RATE,),
    "value_clip": (CRITIC, LATER_VALUES),
    "gamma": (RETURNS,),
    "kl_estimator": (KL, REFERENCE),
    "init_kl_coef": (MOVING_LOSS,),
    "use_kl_loss": (KL_IN_LOSS,),
    "kl_target": (KL, MOVING_KL),
    "kl_horizon": (KL, MOVING_KL, TARGET),
    "cpgd_drift_cap": (DRIFT, KL, OFF_POLICY),
    "max_gen_batches": (given("dynamic_sampling"),),
    **dict.fromkeys(("overlong_buffer_len", "overlong_buffer_penalty_factor"), (given("overlong_buffer"),)),
    **dict.fromkeys(("is_cap", "is_low"), (CORRECTION,)),
    **dict.fromkeys(("temperature_final", "temperature_schedule_steps"), (SCHEDULE,)),
    **dict.fromkeys(("first_token_temperature", "fire_mask_first_token"), (given("use_fire"),)),
    "replay_sampling_mask": (FILTER,),
    "reward_running_norm_minus_mean": (given("reward_running_norm"), MEAN),
    "ema_beta": (given("enable_ema"),),
    "num_episodes": (EPISODES,),
    "lr_warmup_ratio": (WARMUP,),
    **dict.fromkeys(("adam_betas", "adam_epsilon"), (ADAM,)),
    "share_prompts": (COMPANY,),
    "chunk_size": (given("fused_linear_logprob"),),
    **dict.fromkeys(("recompute_granularity", "activation_offload"), (given("gradient_checkpointing"),)),
    "packing_samples": (SEVERAL,),
    "micro_train_batch_size": (SAMPLES,),
    "zero_stage": (DEEPSPEED,),
    "overlap_comm": (OVERLAPS,),
    "adam_offload": (STATE_ELSEWHERE, STATE),
    "ref_shard_size": (KL, REFERENCE, REFERENCE_APART),
    "ref_offload": (KL, REFERENCE, REFERENCE_APART, REFERENCE_ELSEWHERE),
    "prompt_split": (_splits("prompt_data"),),
    **dict.fromkeys(("input_key", "reference_key", "source_key", "on_bad_row", "images_key"), (ROWS,)),
    "label_key": (LABEL, ROWS),
    "eval_split": (given("eval_data"), _splits("eval_data")),
    "eval_steps": (in_time("eval_steps"), given("eval_data")),
    **dict.fromkeys(("max_eval_samples", "eval_temperature", "eval_batch_size"), (given("eval_data"),)),
    "save_steps": (in_time("save_steps"),),
    **dict.fromkeys(("wandb_org", "wandb_run_name"), (given("use_wandb"),)),
    "num_trajectories_to_save": (given("save_trajectories"),),
    "profile_steps": (PROFILED,),
    "logging_steps": (LINES,),
}


def cannot_matter(args: Args, flag: str, other: Any) -> bool:
    """Whether a flag has no effect beside the others, neither with its value nor with the value `other`."""
    value = tuple(other) if isinstance(other, list) else other
    return _is_idle(args, flag) and _is_idle(args.with_(**{flag: value}), flag)


def _is_idle(args: Args, flag: str) -> bool:
    return flag in estimator(args).ignores or not all(need.holds(args) for need in NEEDS.get(flag, ()))


def unmet_needs(args: Args, world_size: int) -> Iterator[Finding]:
    for flag in (flag for flag in FLAGS.values() if args.typed(flag.name)):
        unmet = [need for need in NEEDS.get(flag.name, ()) if not need.holds(args)]
        if unmet:
            reason = unmet[0].otherwise.format(**_values(args))
            yield Notice((flag.name,), f"{args.written(flag.name)} cannot matter: {reason}")


def _values(args: Args) -> Mapping[str, Any]:
    return {**{flag: args.value(flag) for flag in FLAGS}, "late_step": _late_step(args)}


def ignored_by_the_estimator(args: Args, world_size: int) -> Iterator[Finding]:
    name, own = args.algorithm.advantage_estimator, estimator(args)
    for flag in (flag for flag in sorted(own.ignores) if args.typed(flag)):
        told = f"{args.written(flag)} cannot matter to --advantage_estimator {name}"
        yield Notice((flag, "advantage_estimator"), told)
    if args.rewards.advantages_norm and own.whitening == "never":
        yield Notice(
            ("advantages_norm", "advantage_estimator"),
            f"--advantages_norm cannot matter: the advantages of {name} are normalised already",
        )


RULES: tuple[Rule, ...] = (ignored_by_the_estimator, unmet_needs)
