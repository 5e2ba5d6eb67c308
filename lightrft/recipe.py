"""The algorithm that the flags describe: where KL stands, what is done to rewards, how a rollout step is collected."""

from __future__ import annotations

import math

from lightrft.algorithms.control import KLController, TemperatureSchedule
from lightrft.algorithms.estimator import AdvantageSettings, Estimator
from lightrft.args import Args, optimizer_steps, prompts_per_step
from lightrft.args.conditions import is_off_policy, kl_place, needs_entropy, policy_learning_rate, replays_masks
from lightrft.rollouts.collector import CollectSettings
from lightrft.rollouts.engines.base import Sampling
from lightrft.strategy.base import OptimArgs
from lightrft.update.advantages import ShapingSettings
from lightrft.update.kl import KLTerm

LEAST_DRIFT = 0.1  # of its first coefficient: the controller must not let the drift term die out


def total_steps(args: Args, n_prompts: int) -> int:
    """`--max_steps`, or the steps of `--num_episodes` passes over the prompts.

    With `--dynamic_sampling` it is an upper bound: the passes include prompts that were replaced.
    """
    if args.training.max_steps is not None:
        return args.training.max_steps
    each, a = prompts_per_step(args), args.algorithm
    drawn = min(each, a.max_gen_batches * args.batch.rollout_batch_size) if a.dynamic_sampling else each
    return math.ceil(args.training.num_episodes * n_prompts / drawn)


def kl_term(args: Args) -> KLTerm:
    a, place = args.algorithm, kl_place(args)
    floor = LEAST_DRIFT * a.init_kl_coef if place == "drift" else 0.0
    controller = KLController(a.init_kl_coef, a.kl_target or None, a.kl_horizon, floor)
    return KLTerm(place, controller, beside=a.init_kl_coef if place == "drift" and a.use_kl_loss else 0.0)


def needs_old_logprobs(args: Args, kl: KLTerm) -> bool:
    """Whether the policy has to be scored before it learns; else its current log-probabilities are the old ones."""
    return is_off_policy(args) or kl.at("reward") > 0 or needs_entropy(args)


def frozen_steps(args: Args, estimator: Estimator) -> int:
    """Steps at the start in which the critic learns alone."""
    return args.model.freezing_actor_steps if "critic" in estimator.needs else 0


def aggregation(args: Args, estimator: Estimator) -> str:
    """A loss with one ratio per response is a mean over responses, whatever the flag says; so is what ignores it."""
    ignored = estimator.per_row or "loss_agg_mode" in estimator.ignores
    return (None if ignored else args.algorithm.loss_agg_mode) or estimator.aggregation


def shaping_settings(args: Args) -> ShapingSettings:
    a, r = args.algorithm, args.rewards
    return ShapingSettings(
        max_new_tokens=args.model.max_new_tokens,
        overlong_buffer=a.overlong_buffer_len if a.overlong_buffer else 0,
        overlong_factor=a.overlong_buffer_penalty_factor,
        overlong_filter=a.overlong_filter,
        mask_first=args.sampling.use_fire and args.sampling.fire_mask_first_token,
        running_norm=r.reward_running_norm,
        minus_mean=r.reward_running_norm_minus_mean,
        reward_clip=r.reward_clip,
    )


def advantage_settings(args: Args, estimator: Estimator) -> AdvantageSettings:
    asked = args.rewards.advantages_norm
    whiten = estimator.whitening == "part" if asked is None else asked and estimator.whitening != "never"
    return AdvantageSettings(
        kl_kind=args.algorithm.kl_estimator,
        gamma=args.algorithm.gamma,
        lambd=args.algorithm.lambd,
        whiten=whiten,
        clip=args.rewards.advantage_clip,
    )


def collect_settings(args: Args) -> CollectSettings:
    a = args.algorithm
    return CollectSettings(
        n_samples=a.n_samples_per_prompt,
        rollout_batch_size=args.batch.rollout_batch_size,
        prompts_per_step=prompts_per_step(args),
        oversample=args.engine.oversample_ratio,
        most_batches=a.max_gen_batches if a.dynamic_sampling else None,
        episodes=args.training.num_episodes if a.dynamic_sampling and args.training.max_steps is None else None,
    )


def optim_args(args: Args, steps: int) -> OptimArgs:
    """Of a model that learns in `steps` steps of the loop; the critic's have another learning rate."""
    training, total = args.training, steps * optimizer_steps(args)
    warmup = training.lr_warmup_steps
    if warmup is None:
        warmup = math.ceil(round(training.lr_warmup_ratio * total, 6))  # 0.07 * 100 is a little above 7
    return OptimArgs(
        name=training.optimizer,
        learning_rate=policy_learning_rate(args),
        betas=training.adam_betas,
        epsilon=training.adam_epsilon,
        weight_decay=training.l2,
        max_norm=training.max_norm,
        scheduler=training.lr_scheduler,
        warmup_steps=warmup,
        total_steps=total,
    )


def temperature_schedule(args: Args, steps: int) -> TemperatureSchedule:
    s = args.sampling
    final = s.temperature if s.temperature_final is None else s.temperature_final
    over = steps if s.temperature_schedule_steps is None else s.temperature_schedule_steps
    return TemperatureSchedule(s.temperature_schedule, s.temperature, final, over)


def sampling(args: Args) -> Sampling:
    s = args.sampling
    return Sampling(
        args.model.max_new_tokens,
        s.temperature,
        s.top_p,
        s.top_k,
        s.min_p,
        tuple(s.stop),
        first_temperature=s.first_token_temperature if s.use_fire else None,
        returns_mask=replays_masks(args),
    )


def eval_sampling(args: Args) -> Sampling:
    """Unfiltered, at a temperature of its own."""
    return Sampling(args.model.max_new_tokens, args.evaluation.eval_temperature, stop=tuple(args.sampling.stop))
