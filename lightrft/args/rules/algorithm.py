"""What an estimator and its KL term need, and what sampling has to leave open."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.batching import prompts_per_step
from lightrft.args.estimators import (
    estimator_defaults,
    estimator_ignores,
    estimator_kl,
    estimator_needs,
    estimator_per_row,
    estimator_whitening,
    kl_place,
    no_critic,
)
from lightrft.args.field import as_text
from lightrft.args.idle import no_target
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args

LARGE = 0.05  # for the clip of an estimator whose own is smaller: of a whole response's ratio


def group_is_large_enough(args: Args, world_size: int) -> Iterator[Finding]:
    name, n = args.algorithm.advantage_estimator, args.algorithm.n_samples_per_prompt
    if n < 2 and "group" in estimator_needs(name):
        yield Problem(
            ("n_samples_per_prompt", "advantage_estimator"),
            f"--n_samples_per_prompt {n}: --advantage_estimator {name} compares the samples of one prompt, so it "
            f"needs at least --n_samples_per_prompt 2",
        )


def kl_has_a_place(args: Args, world_size: int) -> Iterator[Finding]:
    name, coefficient = args.algorithm.advantage_estimator, args.algorithm.init_kl_coef
    if coefficient > 0 and args.algorithm.use_kl_loss is False and estimator_kl(name) == "loss":
        yield Problem(
            ("use_kl_loss", "init_kl_coef", "advantage_estimator"),
            f"--no-use_kl_loss with --init_kl_coef {as_text(coefficient)}: --advantage_estimator {name} puts no KL "
            "into the reward, so KL has no place; use --init_kl_coef 0 or --use_kl_loss",
        )


def kl_estimator_suits_its_place(args: Args, world_size: int) -> Iterator[Finding]:
    """As a loss k1 has no gradient in expectation; in the reward k2 and k3 have a biased one (algorithms S6.2).

    With --use_kl_loss the KL to the reference is in the loss beside a drift, too.
    """
    a = args.algorithm
    place = "loss" if a.use_kl_loss else kl_place(args)
    flags = ("kl_estimator", "use_kl_loss", "init_kl_coef", "advantage_estimator")
    if a.init_kl_coef > 0 and place == "loss" and a.kl_estimator == "k1":
        yield Notice(
            flags,
            "--kl_estimator k1 in the loss has an expected gradient of zero, so it is noise and no penalty; "
            "use --kl_estimator k3 or k2",
        )
    if a.init_kl_coef > 0 and place == "reward" and a.kl_estimator != "k1":
        yield Notice(
            flags, f"--kl_estimator {a.kl_estimator} in the reward gives a biased gradient; use --kl_estimator k1"
        )


def the_estimator_heeds_it(args: Args, world_size: int) -> Iterator[Finding]:
    name = args.algorithm.advantage_estimator
    for flag in sorted(estimator_ignores(name)):
        if args.typed(flag):
            shown = as_text(args.value(flag))
            yield Notice(
                (flag, "advantage_estimator"), f"--{flag} {shown} cannot matter to --advantage_estimator {name}"
            )
    if args.rewards.advantages_norm and estimator_whitening(name) == "never":
        yield Notice(
            ("advantages_norm", "advantage_estimator"),
            f"--advantages_norm cannot matter: the advantages of {name} are normalised already",
        )


def rows_are_weighed_whole(args: Args, world_size: int) -> Iterator[Finding]:
    name, ratio = args.algorithm.advantage_estimator, args.algorithm.high_entropy_token_ratio
    if 0 < ratio < 1 and estimator_per_row(name):
        yield Problem(
            ("high_entropy_token_ratio", "advantage_estimator"),
            f"--high_entropy_token_ratio {as_text(ratio)}: --advantage_estimator {name} has one ratio for all tokens "
            "of a response; use --high_entropy_token_ratio 0 or --advantage_estimator group_norm",
        )


def clips_have_the_estimators_scale(args: Args, world_size: int) -> Iterator[Finding]:
    name = args.algorithm.advantage_estimator
    own = estimator_defaults(name)
    for flag in ("clip_range", "clip_range_higher"):
        if own.get(flag, LARGE) < LARGE < args.value(flag):
            yield Notice(
                (flag, "advantage_estimator"),
                f"--{flag} {as_text(args.value(flag))} hardly ever clips a response of --advantage_estimator {name}; "
                f"its own is {as_text(own[flag])}",
            )


def the_higher_clip_is_higher(args: Args, world_size: int) -> Iterator[Finding]:
    """A contradiction where a clip was typed; else the estimator has clips of its own."""
    a, flags = args.algorithm, ("use_clip_higher", "clip_range_higher", "clip_range", "advantage_estimator")
    if not a.use_clip_higher or a.clip_range_higher > a.clip_range:
        return
    low, high = as_text(a.clip_range), as_text(a.clip_range_higher)
    if args.typed("clip_range") or args.typed("clip_range_higher"):
        remedy = f"use --clip_range_higher {1.4 * a.clip_range:g} or leave it out"
        line = f"--use_clip_higher, but --clip_range_higher {high} is not above --clip_range {low}; {remedy}"
        yield Problem(flags, line)
    else:
        own = f"the clips of --advantage_estimator {a.advantage_estimator} are {low} and {high}"
        yield Notice(flags, f"--use_clip_higher cannot matter: {own}")


def temperature_goes_somewhere(args: Args, world_size: int) -> Iterator[Finding]:
    s = args.sampling
    if s.temperature_schedule != "constant" and s.temperature_final is None:
        yield Problem(
            ("temperature_schedule", "temperature_final"),
            f"--temperature_schedule {s.temperature_schedule} needs --temperature_final, the temperature at its end",
        )


def overlong_buffer_fits(args: Args, world_size: int) -> Iterator[Finding]:
    a, budget = args.algorithm, args.model.max_new_tokens
    if a.overlong_buffer and 0 < budget < a.overlong_buffer_len:
        yield Problem(
            ("overlong_buffer_len", "overlong_buffer", "max_new_tokens", "max_len", "prompt_max_len"),
            f"--overlong_buffer_len {a.overlong_buffer_len} is longer than the response budget of {budget} tokens; use "
            f"--overlong_buffer_len {max(1, budget // 4)}",
        )


def fire_keeps_a_filter(args: Args, world_size: int) -> Iterator[Finding]:
    s = args.sampling
    if s.use_fire and s.top_k == -1 and s.top_p == 1.0 and s.min_p == 0:
        yield Notice(
            ("use_fire", "top_k", "top_p", "min_p", "first_token_temperature"),
            f"--use_fire at --first_token_temperature {as_text(s.first_token_temperature)} without a filter draws "
            "first tokens that are nearly noise; use --top_k 50, say",
        )


def something_is_left_to_train_on(args: Args, world_size: int) -> Iterator[Finding]:
    s, budget = args.sampling, args.model.max_new_tokens
    if s.use_fire and s.fire_mask_first_token and budget == 1:
        yield Problem(
            ("fire_mask_first_token", "max_new_tokens", "max_len", "prompt_max_len"),
            f"--fire_mask_first_token leaves nothing of --max_new_tokens {budget} to train on; use --max_new_tokens 2 "
            "or more",
        )


def kl_adapts_slowly(args: Args, world_size: int) -> Iterator[Finding]:
    a = args.algorithm
    samples = prompts_per_step(args) * a.n_samples_per_prompt
    typed = args.typed("kl_horizon") or args.typed("kl_target")
    if typed and no_target(args) is None and samples > a.kl_horizon:
        yield Notice(
            ("kl_horizon", "kl_target"),
            f"--kl_horizon {a.kl_horizon} is shorter than a step of {samples} samples, which counts as one horizon; "
            f"use --kl_horizon {samples} or more",
        )


def weights_have_a_band(args: Args, world_size: int) -> Iterator[Finding]:
    a = args.algorithm
    if a.is_correction != "off" and a.is_low is not None and a.is_low > a.is_cap:
        yield Problem(
            ("is_low", "is_cap", "is_correction"),
            f"--is_low {as_text(a.is_low)} is above --is_cap {as_text(a.is_cap)}, so no weight lies between them; "
            f"use --is_cap {as_text(a.is_low)} or more",
        )


def groups_can_vary(args: Args, world_size: int) -> Iterator[Finding]:
    a = args.algorithm
    if a.dynamic_sampling and a.n_samples_per_prompt < 2 and "group" not in estimator_needs(a.advantage_estimator):
        yield Problem(
            ("dynamic_sampling", "n_samples_per_prompt", "advantage_estimator"),
            f"--dynamic_sampling keeps prompts whose rewards differ, and with --n_samples_per_prompt "
            f"{a.n_samples_per_prompt} none can; use --n_samples_per_prompt 2 or --no-dynamic_sampling",
        )


def a_step_can_be_filled(args: Args, world_size: int) -> Iterator[Finding]:
    a, rollout, needed = args.algorithm, args.batch.rollout_batch_size, prompts_per_step(args)
    if a.dynamic_sampling and a.max_gen_batches * rollout < needed:
        batches = -(-needed // rollout)
        yield Problem(
            ("max_gen_batches", "dynamic_sampling", "rollout_batch_size", "train_batch_size", "n_samples_per_prompt"),
            f"--max_gen_batches {a.max_gen_batches} of --rollout_batch_size {rollout} prompts never fill a step of "
            f"{needed}; use --max_gen_batches {3 * batches}, at least {batches}",
        )


def agreement_has_its_weight(args: Args, world_size: int) -> Iterator[Finding]:
    """Where engine and trainer agree the weight is 1 up to rounding: at the edge of the band half of it is outside."""
    a = args.algorithm
    inside = (a.is_low or 0.0) < 1 < a.is_cap
    if a.is_correction in ("token_mask", "sequence_mask", "geometric") and not inside:
        low = as_text(a.is_low or 0.0)
        yield Problem(
            ("is_correction", "is_cap", "is_low"),
            f"--is_correction {a.is_correction} between {low} and {as_text(a.is_cap)} drops what engine and trainer "
            "agree on, whose weight is 1 up to rounding; use --is_low 0.5 --is_cap 2",
        )


def sampling_samples(args: Args, world_size: int) -> Iterator[Finding]:
    if args.sampling.top_k == 0:
        yield Problem(("top_k",), "--top_k 0 leaves no token to sample; use -1 (off) or at least 1")
    if args.sampling.top_k == 1 and args.algorithm.n_samples_per_prompt > 1:
        yield Notice(
            ("top_k", "n_samples_per_prompt"),
            "--top_k 1 always takes the likeliest token, so all samples of a prompt are alike and have nothing to "
            "learn from; use --top_k -1 or more than 1",
        )


def actor_learns_more_slowly(args: Args, world_size: int) -> Iterator[Finding]:
    actor, critic = args.training.actor_learning_rate, args.training.critic_learning_rate
    if no_critic(args) is None and actor >= critic:
        yield Notice(
            ("actor_learning_rate", "critic_learning_rate"),
            f"--actor_learning_rate {as_text(actor)} is not below --critic_learning_rate {as_text(critic)}; the critic "
            f"usually learns faster, as with --critic_learning_rate {10 * actor:g}",
        )


def policy_learns_at_all(args: Args, world_size: int) -> Iterator[Finding]:
    frozen, steps = args.model.freezing_actor_steps, args.training.max_steps
    if no_critic(args) is None and steps is not None and frozen >= steps:
        yield Notice(
            ("freezing_actor_steps", "max_steps"),
            f"--freezing_actor_steps {frozen} leaves the policy none of --max_steps {steps} to learn in",
        )


def value_head_is_one_module(args: Args, world_size: int) -> Iterator[Finding]:
    name = args.model.value_head_prefix
    if no_critic(args) is None and (not name or "." in name):
        yield Problem(
            ("value_head_prefix",),
            f"--value_head_prefix {name or repr(name)} is not the name of one module; use one without dots, as in "
            "--value_head_prefix score",
        )


RULES: tuple[Rule, ...] = (
    group_is_large_enough,
    kl_has_a_place,
    kl_estimator_suits_its_place,
    the_estimator_heeds_it,
    rows_are_weighed_whole,
    clips_have_the_estimators_scale,
    the_higher_clip_is_higher,
    temperature_goes_somewhere,
    overlong_buffer_fits,
    fire_keeps_a_filter,
    something_is_left_to_train_on,
    kl_adapts_slowly,
    weights_have_a_band,
    groups_can_vary,
    a_step_can_be_filled,
    agreement_has_its_weight,
    sampling_samples,
    actor_learns_more_slowly,
    policy_learns_at_all,
    value_head_is_one_module,
)
