from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.batching import optimizer_steps
from lightrft.args.estimators import estimator_names
from lightrft.args.field import Witness, arg

if TYPE_CHECKING:
    from lightrft.args.surface import Args

FROM_STEP_ONE = "--actor_learning_rate 1e-2 --lr_warmup_steps 0"  # with a warm-up the first step has rate 0
OFF_POLICY = "--train_batch_size 8 --actor_learning_rate 1e-2 --reward_fn shaped.py:length"


def _exactly_on_policy(args: Args) -> str | None:
    if optimizer_steps(args) > 1:
        return None
    return "there is one optimizer step per rollout step, so the ratio is exactly 1"


def _no_kl(args: Args) -> str | None:
    return "--init_kl_coef is 0, so no KL is computed" if args.algorithm.init_kl_coef == 0 else None


def _no_kl_to_place(args: Args) -> str | None:
    return _no_kl(args) if args.algorithm.use_kl_loss else None


@dataclass(frozen=True, kw_only=True)
class AlgorithmArgs:
    """Algorithm"""

    advantage_estimator: str = arg(
        "group_norm",
        "Advantage and policy loss, declared together in one file of lightrft/algorithms/estimators.",
        choices=estimator_names,
        witness=Witness("--advantage_estimator no_such_estimator", "refused"),
    )
    n_samples_per_prompt: int = arg(
        4,
        "Responses sampled per prompt; the group size.",
        ge=1,
        witness=Witness("--n_samples_per_prompt 2", "metrics", given="--train_batch_size 8"),
    )
    kl_estimator: str = arg(
        "k3",
        "Estimator of the KL to the reference model: k1 for the reward, k2 or k3 for the loss.",
        choices=("k1", "k2", "k3"),
        matters=_no_kl,
        witness=Witness("--kl_estimator k2", "metrics", given=f"{FROM_STEP_ONE} --init_kl_coef 0.5"),
    )
    init_kl_coef: float = arg(
        0.001,
        "KL coefficient; 0 = no KL and no reference model.",
        ge=0,
        recommended=(0.0001, 0.01),
        witness=Witness("--init_kl_coef 0.5", "model", given=FROM_STEP_ONE),
    )
    use_kl_loss: bool | None = arg(
        None,
        "KL in the loss (and then not in the reward).",
        unset="the estimator's own placement",
        matters=_no_kl_to_place,
        witness=Witness("--no-use_kl_loss", "refused"),
    )
    clip_range: float = arg(
        0.2,
        "Lower clip: the ratio counts down to 1 - clip_range.",
        gt=0,
        lt=1,
        recommended=(0.1, 0.3),
        matters=_exactly_on_policy,
        witness=Witness("--clip_range 0.01", "metrics", given=OFF_POLICY),
    )
    clip_range_higher: float = arg(
        0.3,
        "Upper clip: the ratio counts up to 1 + clip_range_higher.",
        gt=0,
        matters=_exactly_on_policy,
        witness=Witness("--clip_range_higher 0.01", "metrics", given=OFF_POLICY),
    )
    loss_agg_mode: str | None = arg(
        None,
        "How per-token losses become one number.",
        choices=(
            "token-mean",
            "seq-mean-token-sum",
            "seq-mean-token-mean",
            "seq-mean-token-sum-norm",
            "prompt-mean-token-mean",
        ),
        unset="the estimator's own",
        witness=Witness("--loss_agg_mode seq-mean-token-sum", "metrics"),
    )
