"""What a run will do, in words: its learning rate, KL and clips, how its loss is reduced, what its rewards weigh."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from lightrft.algorithms.estimator import Estimator, load_estimator
from lightrft.args import Args
from lightrft.args.conditions import is_off_policy, needs_entropy
from lightrft.recipe import advantage_settings, aggregation, frozen_steps, kl_term, optim_args

SCHEDULES = {
    "constant": "constant",
    "linear": "falling to 0 in a line",
    "cosine": "falling to 0 by cosine",
    "cosine_with_min_lr": "falling to a tenth by cosine",
}


def method(args: Args, steps: int) -> Iterator[str]:
    """Lines for a person, about a run of `steps` steps."""
    estimator = load_estimator(args.algorithm.advantage_estimator)
    yield _optimizer(args, estimator, steps)
    yield _kl(args)
    yield f"{_clips(args, estimator)}; {_reduction(args, estimator)}"


def weighted_rewards(weights: Mapping[str, float]) -> str:
    """The rewards, with their weights where one of them is not 1."""
    if all(weight == 1.0 for weight in weights.values()):
        return " + ".join(weights)
    return " + ".join(f"{weight:g} x {name}" for name, weight in weights.items())


def _optimizer(args: Args, estimator: Estimator, steps: int) -> str:
    o = optim_args(args, max(steps - frozen_steps(args, estimator), 0))
    critic = f" (critic {args.training.critic_learning_rate:g})" if "critic" in estimator.needs else ""
    after = f" after {o.warmup_steps} of warm-up" if o.warmup_steps else ""
    norm = f"gradients clipped to norm {o.max_norm:g}" if o.max_norm else "gradients not clipped"
    decay = f", weight decay {o.weight_decay:g}" if o.weight_decay else ""
    schedule = f"{SCHEDULES[o.scheduler]}{after}, over {o.total_steps} optimizer step{'s' * (o.total_steps != 1)}"
    return f"{o.name} at {o.learning_rate:g}{critic}, {schedule}; {norm}{decay}"


def _kl(args: Args) -> str:
    a, term = args.algorithm, kl_term(args)
    if not term.needs_reference and term.place != "drift":
        return "no KL, no reference model"
    if a.init_kl_coef == 0:
        return "no drift term: --init_kl_coef is 0"
    target = f"adapted to {term.controller.target:g}" if term.controller.target else "fixed"
    if term.place == "drift":
        second = f", and {term.beside:g} x KL to the reference ({a.kl_estimator}) in the loss" if term.beside else ""
        return f"{a.init_kl_coef:g} x drift from the old policy in the loss, {target}{second}"
    return f"{a.init_kl_coef:g} x KL to the reference ({a.kl_estimator}) in the {term.place}, {target}"


def _clips(args: Args, estimator: Estimator) -> str:
    a = args.algorithm
    if not is_off_policy(args):
        return "ratio exactly 1, so no clip acts"
    whose = "response's" if estimator.per_row else "token's"
    sides = {"clip_range": "below", "clip_range_higher": "above", "dual_clip": "where the advantage is negative"}
    acting = [name for name in sides if name not in estimator.ignores and args.value(name) is not None]
    bounds = [f"{args.value(name):g} {sides[name]}" for name in acting]
    if not bounds:
        return f"no clip: --advantage_estimator {a.advantage_estimator} heeds none"
    return f"clips of a {whose} ratio {', '.join([' and '.join(bounds[:2]), *bounds[2:]])}"


def _reduction(args: Args, estimator: Estimator) -> str:
    settings, correction = advantage_settings(args, estimator), args.algorithm.is_correction
    whitened = ", advantages whitened" if settings.whiten else ""
    weights = f", {correction} weights up to {args.algorithm.is_cap:g}" if correction != "off" else ""
    entropy = f", entropy bonus {args.algorithm.entropy_coef:g}" if args.algorithm.entropy_coef else ""
    share = f", policy loss on the {args.algorithm.high_entropy_token_ratio:g} of tokens with the highest entropy"
    selected = share if needs_entropy(args) else ""
    return f"loss reduced by {aggregation(args, estimator)}{selected}{whitened}{weights}{entropy}"
