"""What the batch sizes mean: rollout_batch_size counts prompts, train_batch_size samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightrft.args.surface import Args


def prompts_per_step(args: Args) -> int:
    """Prompts of one rollout step: several rollout batches where the train batch is larger than one."""
    return max(args.batch.rollout_batch_size, args.batch.train_batch_size // args.algorithm.n_samples_per_prompt)


def batches_per_rollout(args: Args) -> int:
    """k: how many train batches one rollout step is split into. 1 is exactly on-policy."""
    samples = args.batch.rollout_batch_size * args.algorithm.n_samples_per_prompt
    return max(1, samples // args.batch.train_batch_size)


def optimizer_steps(args: Args) -> int:
    """Optimizer steps of one rollout step: k x max_epochs."""
    return batches_per_rollout(args) * args.training.max_epochs


def fits(samples: int, train_batch: int) -> bool:
    return samples % train_batch == 0 or train_batch % samples == 0


def legal_train_batches(samples: int, train_batch: int, unit: int) -> list[int]:
    """The nearest legal sizes below and above: they divide or multiply `samples` and are multiples of `unit`.

    The least common multiple is always legal, so there is always one above; below there may be none.
    """
    common = math.lcm(samples, unit)
    below = (size for size in range(train_batch // unit * unit, 0, -unit) if fits(samples, size))
    above = (size for size in range((train_batch // unit + 1) * unit, train_batch + common + 1, unit))
    return [*_first(below), *_first(size for size in above if fits(samples, size))]


def legal_micro_batches(train_batch: int, micro: int, world_size: int) -> list[int]:
    """The nearest micro-batch sizes below and above that divide the train batch on every rank; maybe none."""
    if train_batch % world_size:
        return []
    share = train_batch // world_size
    divisors = [size for size in range(1, share + 1) if share % size == 0]
    return [*[size for size in divisors if size < micro][-1:], *[size for size in divisors if size > micro][:1]]


def _first(sizes: Iterable[int]) -> list[int]:
    return [size for _, size in zip(range(1), sizes, strict=False)]
