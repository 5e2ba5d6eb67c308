from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightrft.args.estimators import AGGREGATIONS, declared, estimator_names
from lightrft.args.field import Witness, arg, older


def _kl_estimator(values: Mapping[str, Any]) -> str:
    place = declared(values["advantage_estimator"]).kl_place(values["use_kl_loss"])
    return "k1" if place == "reward" else "k3"


FROM_STEP_ONE = "--actor_learning_rate 1e-2 --lr_warmup_steps 0"  # with a warm-up the first step has rate 0
SCALED = f"{FROM_STEP_ONE} --optimizer sgd --max_norm 0"  # Adam and clipping hide the size of a gradient
OFF_POLICY = "--train_batch_size 8 --actor_learning_rate 1e-2 --reward_fn shaped.py:length"


@dataclass(frozen=True, kw_only=True)
class AlgorithmArgs:
    """Algorithm"""

    advantage_estimator: str = arg(
        "group_norm",
        "Advantage and policy loss, declared together in one file: a name, or the path of a .py file of one's own.",
        choices=estimator_names,
        path=True,
        witness=Witness("--advantage_estimator reinforce", "metrics"),
    )
    n_samples_per_prompt: int = arg(
        4,
        "Responses sampled per prompt; the group size.",
        ge=1,
        witness=Witness("--n_samples_per_prompt 2", "metrics", given="--train_batch_size 8"),
    )
    kl_estimator: str = arg(
        "k3",
        "Estimator of the KL to the reference model; where it stands in the reward the default is k1.",
        choices=("k1", "k2", "k3"),
        derive=_kl_estimator,
        witness=Witness("--kl_estimator k2", "metrics", given=f"{FROM_STEP_ONE} --init_kl_coef 0.5"),
    )
    init_kl_coef: float = arg(
        0.001,
        "KL coefficient; 0 = no KL and no reference model.",
        ge=0,
        recommended=(0.0001, 0.1),
        witness=Witness("--init_kl_coef 0.5", "model", given=FROM_STEP_ONE),
    )
    use_kl_loss: bool | None = arg(
        None,
        "KL in the loss (and then not in the reward).",
        unset="the estimator's own placement",
        witness=Witness("--use_kl_loss", "metrics", given="--advantage_estimator reinforce"),
    )
    clip_range: float = arg(
        0.2,
        "Lower clip: the ratio counts down to 1 - clip_range.",
        gt=0,
        lt=1,
        recommended=(0.1, 0.3),
        aliases=("clip_range_lower",),
        witness=Witness("--clip_range 0.01", "metrics", given=OFF_POLICY),
    )
    clip_range_higher: float = arg(
        0.3,
        "Upper clip: the ratio counts up to 1 + clip_range_higher.",
        gt=0,
        witness=Witness("--clip_range_higher 0.01", "metrics", given=OFF_POLICY),
    )
    loss_agg_mode: str | None = arg(
        None,
        "How per-token losses become one number.",
        choices=AGGREGATIONS,
        unset="the estimator's own",
        witness=Witness("--loss_agg_mode seq-mean-token-sum", "metrics"),
    )
    kl_target: float | None = arg(
        None,
        "KL that the coefficient is adapted to reach; 0 = a fixed coefficient.",
        ge=0,
        recommended=(0.001, 0.1),
        unset="0.01 for cpgd, else 0",
        witness=Witness("--kl_target 1.0", "metrics", given=f"{FROM_STEP_ONE} --init_kl_coef 0.5 --kl_horizon 16"),
    )
    kl_horizon: int = arg(
        10000,
        "Samples over which the KL coefficient adapts.",
        ge=1,
        witness=Witness("--kl_horizon 16", "metrics", given=f"{FROM_STEP_ONE} --init_kl_coef 0.5 --kl_target 1.0"),
    )
    dual_clip: float | None = arg(
        None,
        "Bound of the ratio where the advantage is negative; 3 is usual.",
        gt=1,
        unset="no dual clip",
        witness=Witness("--dual_clip 1.01", "metrics", given=OFF_POLICY),
    )
    entropy_coef: float = arg(
        0.0, "Weight of the entropy bonus.", ge=0, witness=Witness("--entropy_coef 0.5", "model", given=FROM_STEP_ONE)
    )
    gamma: float = arg(
        1.0,
        "Discount of later rewards.",
        ge=0,
        le=1,
        witness=Witness("--gamma 0.5", "model", given=f"{FROM_STEP_ONE} --advantage_estimator reinforce"),
    )
    lambd: float = arg(
        0.95,
        "Lambda of GAE: 1 = whole returns, 0 = one step and the critic's value of the next token.",
        ge=0,
        le=1,
        witness=Witness("--lambd 0.5", "model", given=f"{FROM_STEP_ONE} --advantage_estimator gae"),
    )
    value_clip: float = arg(
        0.2,
        "Clip of the critic's change within one rollout step.",
        gt=0,
        witness=Witness(
            "--value_clip 0.001",
            "metrics",
            given=f"{OFF_POLICY} --advantage_estimator gae --critic_learning_rate 1e-2 --lr_warmup_steps 0",
        ),
    )
    cpgd_drift_cap: float = arg(
        2.0,
        "Largest excess of the ratio over 1 that CPGD's drift counts.",
        gt=0,
        witness=Witness(
            "--cpgd_drift_cap 1.001",
            "metrics",
            given=f"{OFF_POLICY} --advantage_estimator cpgd --max_epochs 4 --init_kl_coef 1",
        ),
    )
    high_entropy_token_ratio: float = arg(
        0.0,
        "Train on this share of tokens, those of highest entropy; 0 = on all.",
        ge=0,
        le=1,
        witness=Witness("--high_entropy_token_ratio 0.2", "model", given=FROM_STEP_ONE),
    )
    dynamic_sampling: bool = arg(
        False,
        "Replace groups whose rewards are all equal by new prompts.",
        witness=Witness("--dynamic_sampling", "metrics"),
    )
    max_gen_batches: int = arg(
        10,
        "Rollout batches that dynamic sampling may take for one step.",
        ge=1,
        witness=Witness("--max_gen_batches 1", "metrics", given="--dynamic_sampling"),
    )
    overlong_buffer: bool = arg(
        False,
        "Punish responses that come near the response budget.",
        witness=Witness("--overlong_buffer", "metrics", given="--overlong_buffer_len 8"),
    )
    overlong_buffer_len: int = arg(
        1024,
        "Tokens before the budget in which the punishment grows.",
        ge=1,
        witness=Witness("--overlong_buffer_len 2", "metrics", given="--overlong_buffer --overlong_buffer_len 8"),
    )
    overlong_buffer_penalty_factor: float = arg(
        1.0,
        "Punishment of a response that fills the budget.",
        gt=0,
        witness=Witness(
            "--overlong_buffer_penalty_factor 3", "metrics", given="--overlong_buffer --overlong_buffer_len 8"
        ),
    )
    overlong_filter: bool = arg(
        False,
        "Do not train on responses that were cut off.",
        witness=Witness("--overlong_filter", "metrics", given="--max_new_tokens 2 --reward_fn shaped.py:length"),
    )
    is_correction: str = arg(
        "token_truncate",
        "Importance weights between engine and trainer.",
        choices=("off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric"),
        witness=Witness("--is_correction off", "model", given=f"{SCALED} --is_cap 0.5"),
    )
    is_cap: float = arg(
        2.0, "Upper bound of these weights.", gt=0, witness=Witness("--is_cap 0.5", "model", given=SCALED)
    )
    is_low: float | None = arg(
        None,
        "Lower bound of these weights.",
        gt=0,
        unset="none",
        witness=Witness("--is_low 1.5", "model", given=SCALED),
    )
    eps_clip: float | None = older(
        None,
        "Older name of both clips in one.",
        gt=0,
        lt=1,
        unset="--clip_range and --clip_range_higher",
        witness=Witness("--eps_clip 0.01", "metrics", given=OFF_POLICY),
    )
    use_clip_higher: bool | None = older(
        None,
        "Older switch: off makes the upper clip equal to --clip_range.",
        unset="--clip_range_higher decides",
        witness=Witness("--no-use_clip_higher", "metrics", given=f"{OFF_POLICY} --clip_range 0.01"),
    )
    use_gspo: bool = older(
        False, "Older switch of --advantage_estimator gspo.", witness=Witness("--use_gspo", "metrics", given=OFF_POLICY)
    )
    use_cpg_loss: bool = older(
        False,
        "Older switch of --advantage_estimator cpgd.",
        witness=Witness("--use_cpg_loss", "metrics", given=OFF_POLICY),
    )
