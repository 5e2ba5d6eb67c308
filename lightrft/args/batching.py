"""What the batch sizes mean: rollout_batch_size counts prompts, train_batch_size samples."""

from __future__ import annotations

import math

from lightrft.args.surface import Args

SEARCHED = 10**6  # divisors up to here are tried: a mistyped size must not hang the refusal


def samples_of(args: Args, prompts: int) -> int:
    """Samples that so many prompts make. No other code multiplies by --n_samples_per_prompt."""
    return prompts * args.algorithm.n_samples_per_prompt


def rollout_samples(args: Args) -> int:
    """Samples of one rollout batch."""
    return samples_of(args, args.batch.rollout_batch_size)


def prompts_per_step(args: Args) -> int:
    """Prompts of one rollout step: several rollout batches where the train batch is larger than one."""
    return max(args.batch.rollout_batch_size, args.batch.train_batch_size // args.algorithm.n_samples_per_prompt)


def rows_per_pass(args: Args) -> int:
    """Samples that one forward pass without gradients scores."""
    return samples_of(args, args.batch.micro_rollout_batch_size)


def batches_per_rollout(args: Args) -> int:
    """k: how many train batches one rollout step is split into. 1 is exactly on-policy."""
    return max(1, rollout_samples(args) // args.batch.train_batch_size)


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
    divisors = [size for size in _divisors(samples) if size % unit == 0]
    nearest = train_batch // common
    sizes = sorted({*divisors, *(common * times for times in (nearest - 1, nearest, nearest + 1))})
    return around(train_batch, [size for size in sizes if size > 0])


def legal_micro_batches(train_batch: int, micro: int, world_size: int) -> list[int]:
    """The nearest micro-batch sizes below and above that divide the train batch on every rank; maybe none."""
    if train_batch % world_size:
        return []
    return around(micro, _divisors(train_batch // world_size))


def around(number: int, sizes: list[int]) -> list[int]:
    """The last below and the first above it, of sizes in order."""
    return [*[size for size in sizes if size < number][-1:], *[size for size in sizes if size > number][:1]]


def _divisors(number: int) -> list[int]:
    """Sorted; of a very large number only those that are small or belong to a small one."""
    small = [size for size in range(1, min(math.isqrt(number), SEARCHED) + 1) if number % size == 0]
    return sorted({*small, *(number // size for size in small)})
