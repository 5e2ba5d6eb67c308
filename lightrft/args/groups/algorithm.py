from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightrft.args.batching import optimizer_steps
from lightrft.args.estimators import estimator_names
from lightrft.args.field import Witness, arg, unbuilt

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
    kl_target: float | None = unbuilt(
        "estimators",
        None,
        "KL that the coefficient is adapted to reach.",
        "--kl_target 0.01",
        gt=0,
        recommended=(0.001, 0.01),
        unset="0.01 for cpgd, else a fixed coefficient",
    )
    kl_horizon: int = unbuilt(
        "estimators", 10000, "Samples over which the KL coefficient adapts.", "--kl_horizon 1000", ge=1
    )
    dual_clip: float | None = unbuilt(
        "estimators",
        None,
        "Bound of the ratio where the advantage is negative; 3 is usual.",
        "--dual_clip 3",
        gt=1,
        unset="no dual clip",
    )
    entropy_coef: float = unbuilt("estimators", 0.0, "Weight of the entropy bonus.", "--entropy_coef 0.01", ge=0)
    gamma: float = unbuilt("estimators", 1.0, "Discount of later rewards.", "--gamma 0.99", ge=0, le=1)
    lambd: float = unbuilt("estimators", 0.95, "Lambda of GAE.", "--lambd 1", ge=0, le=1)
    value_clip: float = unbuilt("estimators", 0.2, "Clip of the critic's change.", "--value_clip 0.1", gt=0)
    cpgd_drift_cap: float = unbuilt("estimators", 2.0, "Largest ratio in CPGD's drift.", "--cpgd_drift_cap 3", gt=1)
    high_entropy_token_ratio: float = unbuilt(
        "estimators",
        0.0,
        "Train on this share of tokens, those of highest entropy; 0 = on all.",
        "--high_entropy_token_ratio 0.2",
        ge=0,
        le=1,
    )
    dynamic_sampling: bool = unbuilt(
        "estimators", False, "Replace groups whose rewards are all equal by new prompts.", "--dynamic_sampling"
    )
    max_gen_batches: int = unbuilt(
        "estimators", 10, "Rollout batches that dynamic sampling may take for one step.", "--max_gen_batches 5", ge=1
    )
    overlong_buffer: bool = unbuilt(
        "estimators", False, "Punish responses that come near the response budget.", "--overlong_buffer"
    )
    overlong_buffer_len: int = unbuilt(
        "estimators", 1024, "Tokens before the budget in which the punishment grows.", "--overlong_buffer_len 512", ge=1
    )
    overlong_buffer_penalty_factor: float = unbuilt(
        "estimators",
        1.0,
        "Punishment of a response that fills the budget.",
        "--overlong_buffer_penalty_factor 0.5",
        gt=0,
    )
    overlong_filter: bool = unbuilt(
        "estimators", False, "Do not train on responses that were cut off.", "--overlong_filter"
    )
    is_correction: str = unbuilt(
        "estimators",
        "token_truncate",
        "Importance weights between engine and trainer.",
        "--is_correction off",
        choices=("off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric"),
    )
    is_cap: float = unbuilt("estimators", 2.0, "Upper bound of these weights.", "--is_cap 3", gt=0)
    is_low: float | None = unbuilt(
        "estimators", None, "Lower bound of these weights.", "--is_low 0.5", gt=0, unset="none"
    )
    eps_clip: float | None = unbuilt(
        "estimators",
        None,
        "Both clips in one.",
        "--eps_clip 0.2",
        gt=0,
        lt=1,
        unset="--clip_range, --clip_range_higher",
    )
    clip_range_lower: float | None = unbuilt(
        "estimators", None, "Older name of --clip_range.", "--clip_range_lower 0.2", gt=0, lt=1, unset="--clip_range"
    )
    use_clip_higher: bool | None = unbuilt(
        "estimators",
        None,
        "Older switch of --clip_range_higher.",
        "--use_clip_higher",
        unset="--clip_range_higher decides",
    )
    use_gspo: bool = unbuilt("estimators", False, "Older switch of --advantage_estimator gspo.", "--use_gspo")
    use_cpg_loss: bool = unbuilt("estimators", False, "Older switch of --advantage_estimator cpgd.", "--use_cpg_loss")
    normalize_advantages: bool | None = unbuilt(
        "estimators", None, "Older name of --advantages_norm.", "--normalize_advantages", unset="--advantages_norm"
    )
