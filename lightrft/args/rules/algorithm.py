"""What an estimator and its KL term need, and what sampling has to leave open."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.estimators import estimator_kl, estimator_needs
from lightrft.args.field import as_text
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args


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
    if coefficient > 0 and args.algorithm.use_kl_loss is False and estimator_kl(name) != "reward":
        yield Problem(
            ("use_kl_loss", "init_kl_coef", "advantage_estimator"),
            f"--no-use_kl_loss with --init_kl_coef {as_text(coefficient)}: --advantage_estimator {name} puts no KL "
            "into the reward, so KL has no place; use --init_kl_coef 0 or --use_kl_loss",
        )


def kl_in_loss_has_a_gradient(args: Args, world_size: int) -> Iterator[Finding]:
    algorithm = args.algorithm
    in_loss = algorithm.use_kl_loss is True or (
        algorithm.use_kl_loss is None and estimator_kl(algorithm.advantage_estimator) == "loss"
    )
    if algorithm.kl_estimator == "k1" and algorithm.init_kl_coef > 0 and in_loss:
        yield Notice(
            ("kl_estimator", "use_kl_loss", "init_kl_coef", "advantage_estimator"),
            "--kl_estimator k1 in the loss has an expected gradient of zero, so it is noise and no penalty; "
            "use --kl_estimator k3 or k2",
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
    has_critic = "critic" in estimator_needs(args.algorithm.advantage_estimator) or args.typed("critic_learning_rate")
    if has_critic and actor >= critic:
        yield Notice(
            ("actor_learning_rate", "critic_learning_rate"),
            f"--actor_learning_rate {as_text(actor)} is not below --critic_learning_rate {as_text(critic)}; the critic "
            f"usually learns faster, as with --critic_learning_rate {10 * actor:g}",
        )


RULES: tuple[Rule, ...] = (
    group_is_large_enough,
    kl_has_a_place,
    kl_in_loss_has_a_gradient,
    sampling_samples,
    actor_learns_more_slowly,
)
