"""Why a flag of the algorithm, once typed, can have no effect beside the others: a reason, or None where it has one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightrft.args.batching import optimizer_steps
from lightrft.args.estimators import estimator_drifts, estimator_kl, no_critic

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def exactly_on_policy(args: Args) -> str | None:
    if optimizer_steps(args) > 1:
        return None
    return "there is one optimizer step per rollout step, so the ratio is exactly 1"


def no_later_step(args: Args) -> str | None:
    one = "there is one optimizer step per rollout step, so values are the old ones"
    return no_critic(args) or (one if optimizer_steps(args) == 1 else None)


def no_kl(args: Args) -> str | None:
    return "--init_kl_coef is 0, so no KL is computed" if args.algorithm.init_kl_coef == 0 else None


def no_reference(args: Args) -> str | None:
    name = args.algorithm.advantage_estimator
    if estimator_drifts(name) and not args.algorithm.use_kl_loss:
        return no_kl(args) or f"--advantage_estimator {name} has a drift term in place of the KL to the reference"
    return no_kl(args)


def not_adapted(args: Args) -> str | None:
    """A drift is exactly 0 where the ratio is 1."""
    return no_kl(args) or (exactly_on_policy(args) if estimator_drifts(args.algorithm.advantage_estimator) else None)


def no_target(args: Args) -> str | None:
    return not_adapted(args) or (
        None if args.algorithm.kl_target else "there is no --kl_target, so the coefficient is fixed"
    )


def no_returns(args: Args) -> str | None:
    name = args.algorithm.advantage_estimator
    return None if estimator_kl(name) == "reward" else f"--advantage_estimator {name} has one advantage a response"


def no_drift(args: Args) -> str | None:
    name = args.algorithm.advantage_estimator
    if not estimator_drifts(name):
        return f"--advantage_estimator {name} has no drift term"
    return no_kl(args) or exactly_on_policy(args)


def no_coefficient(args: Args) -> str | None:
    """Of the KL to the reference, or of a drift in its place."""
    drifts = estimator_drifts(args.algorithm.advantage_estimator) and not args.algorithm.use_kl_loss
    return exactly_on_policy(args) if drifts else None


def no_dynamic_sampling(args: Args) -> str | None:
    return None if args.algorithm.dynamic_sampling else "there is no --dynamic_sampling"


def no_overlong_buffer(args: Args) -> str | None:
    return None if args.algorithm.overlong_buffer else "there is no --overlong_buffer"


def no_correction(args: Args) -> str | None:
    return "--is_correction is off" if args.algorithm.is_correction == "off" else None


def no_kl_to_place(args: Args) -> str | None:
    return no_kl(args) if args.algorithm.use_kl_loss else None
