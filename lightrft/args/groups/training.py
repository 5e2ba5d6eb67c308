from __future__ import annotations

from dataclasses import dataclass

from lightrft.args.field import Witness, arg


@dataclass(frozen=True, kw_only=True)
class TrainingArgs:
    """Training"""

    num_episodes: int = arg(
        1,
        "Passes over the prompts.",
        ge=1,
        recommended=(1, 100),
        witness=Witness("--num_episodes 2", "metrics", without="--max_steps"),
    )
    max_epochs: int = arg(
        1,
        "Passes over the samples of one rollout step.",
        ge=1,
        recommended=(1, 3),
        witness=Witness("--max_epochs 2", "model"),
    )
    max_steps: int | None = arg(
        None,
        "Steps of the loop (collect, learn, sync); replaces --num_episodes.",
        ge=1,
        unset="as many as --num_episodes takes",
        witness=Witness("--max_steps 3", "metrics"),
    )
    actor_learning_rate: float = arg(
        5e-7,
        "Peak learning rate of the policy.",
        gt=0,
        recommended=(1e-7, 2e-4),
        witness=Witness("--actor_learning_rate 2e-3", "metrics"),
    )
    critic_learning_rate: float = arg(
        9e-6,
        "Peak learning rate of the critic.",
        gt=0,
        recommended=(1e-6, 1e-5),
        witness=Witness("--critic_learning_rate 1e-3", "metrics", given="--advantage_estimator gae"),
    )
    lr_warmup_ratio: float = arg(
        0.03,
        "Share of all optimizer steps in which the learning rate rises.",
        ge=0,
        le=1,
        recommended=(0, 0.1),
        witness=Witness("--lr_warmup_ratio 0.5", "metrics", given="--max_steps 8"),
    )
    lr_warmup_steps: int | None = arg(
        None,
        "Optimizer steps in which the learning rate rises; replaces --lr_warmup_ratio.",
        ge=0,
        unset="from --lr_warmup_ratio",
        witness=Witness("--lr_warmup_steps 3", "metrics", given="--max_steps 4"),
    )
    lr_scheduler: str = arg(
        "cosine_with_min_lr",
        "Course of the learning rate after the warm-up.",
        choices=("constant", "linear", "cosine", "cosine_with_min_lr"),
        witness=Witness("--lr_scheduler constant", "metrics", given="--max_steps 4"),
    )
    optimizer: str = arg(
        "adamw", "Optimizer of the policy.", choices=("adamw", "sgd"), witness=Witness("--optimizer sgd", "model")
    )
    max_norm: float = arg(
        1.0,
        "Norm to which gradients are clipped; 0 = no clipping.",
        ge=0,
        witness=Witness("--max_norm 0.001", "model", given="--optimizer sgd --actor_learning_rate 0.1"),
    )
    l2: float = arg(0.0, "Weight decay.", ge=0, witness=Witness("--l2 0.5", "model"))
    adam_betas: tuple[float, float] = arg(
        (0.9, 0.95),
        "Decay rates of Adam's two moments.",
        ge=0,
        lt=1,
        nargs=2,
        witness=Witness("--adam_betas 0.5 0.6", "model"),
    )
    adam_epsilon: float = arg(
        1e-8,
        "Adam's epsilon.",
        gt=0,
        witness=Witness("--adam_epsilon 0.01", "model"),
    )
    seed: int = arg(42, "Seed of sampling, shuffling and initialisation.", ge=0, witness=Witness("--seed 7", "metrics"))
    enable_ema: bool = arg(
        False,
        "Keep an exponential moving average of the policy's weights, in float32; saved, and exported to ema/ below the "
        "model. Nothing samples from it: rollouts and evaluations use the policy.",
        witness=Witness("--enable_ema", "files"),
    )
    ema_beta: float = arg(
        0.992,
        "Decay of that average: after each optimizer step it is beta times itself plus (1 - beta) times the weights.",
        ge=0,
        lt=1,
        witness=Witness("--ema_beta 0.5", "average", given="--enable_ema"),
    )
