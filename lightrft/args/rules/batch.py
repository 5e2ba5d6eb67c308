"""How the batch sizes fit each other and the processes; the arithmetic is in args/batching.py."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.batching import batches_per_rollout, fits, legal_micro_batches, legal_train_batches, rollout_samples
from lightrft.args.rules.finding import Finding, Rule, either, processes
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args

SIZES = ("train_batch_size", "micro_train_batch_size", "rollout_batch_size", "n_samples_per_prompt")


def train_batch_and_rollout_batch(args: Args, world_size: int) -> Iterator[Finding]:
    prompts, n, size = args.batch.rollout_batch_size, args.algorithm.n_samples_per_prompt, args.batch.train_batch_size
    flags, samples = ("train_batch_size", "rollout_batch_size", "n_samples_per_prompt"), rollout_samples(args)
    if not fits(samples, size):
        yield Problem(
            flags,
            f"--train_batch_size {size} neither divides nor is a multiple of --rollout_batch_size {prompts} x "
            f"--n_samples_per_prompt {n} = {samples}; nearest: {_train_batches(args, world_size)}",
        )
    elif (k := batches_per_rollout(args)) > 1:
        yield Notice(
            flags,
            f"--train_batch_size {size}: each rollout of {prompts} x {n} = {samples} samples is "
            f"trained on in {k} optimizer steps; --train_batch_size {samples} is exactly on-policy",
        )


def train_batch_and_micro_batch(args: Args, world_size: int) -> Iterator[Finding]:
    size, micro, ranks = args.batch.train_batch_size, _unit(args), _ranks(args, world_size)
    if size % (micro * ranks) == 0:
        return
    micros = legal_micro_batches(size, micro, ranks) if args.batch.max_tokens_per_micro_batch is None else []
    other = f", or --micro_train_batch_size {either(micros)}" if micros else ""
    counted = args.batch.max_tokens_per_micro_batch is None
    by = f"--micro_train_batch_size {micro} x {processes(ranks)} = {micro * ranks}" if counted else processes(ranks)
    yield Problem(
        (*SIZES, "sp_size", "assume_gpus"),
        f"--train_batch_size {size} is not divisible by {by}; nearest: {_train_batches(args, world_size)}{other}",
    )


def rollout_batch_and_engines(args: Args, world_size: int) -> Iterator[Finding]:
    """An engine spans --engine_tp_size processes, and every engine gets equally many prompts."""
    prompts, span = args.batch.rollout_batch_size, args.engine.engine_tp_size
    engines = max(1, world_size // span)
    if prompts % engines:
        what = f"{engines} engines of {processes(span)}" if span > 1 else processes(world_size)
        below = prompts // engines * engines
        nearest = [size for size in (below, below + engines) if size]
        yield Problem(
            ("rollout_batch_size", "engine_tp_size", "assume_gpus"),
            f"--rollout_batch_size {prompts} is not divisible by {what}; nearest: "
            f"--rollout_batch_size {either(nearest)}",
        )


def tokens_and_lengths(args: Args, world_size: int) -> Iterator[Finding]:
    """The longest sample has to fit into a micro-batch."""
    most, longest = args.batch.max_tokens_per_micro_batch, args.model.prompt_max_len + args.model.max_new_tokens
    if most is not None and most < longest:
        yield Problem(
            ("max_tokens_per_micro_batch", "prompt_max_len", "max_new_tokens", "max_len"),
            f"--max_tokens_per_micro_batch {most} is less than the {longest} tokens that one sample may have "
            f"(--prompt_max_len and --max_new_tokens); give {longest} or more",
        )


def _unit(args: Args) -> int:
    """Samples that a micro-batch is a multiple of: where tokens are counted, one."""
    return args.batch.micro_train_batch_size if args.batch.max_tokens_per_micro_batch is None else 1


def _ranks(args: Args, world_size: int) -> int:
    """Data-parallel ranks: --sp_size processes work on one sample together."""
    return max(1, world_size // args.distributed.sp_size)


def _train_batches(args: Args, world_size: int) -> str:
    unit = _unit(args) * _ranks(args, world_size)
    return f"--train_batch_size {either(legal_train_batches(rollout_samples(args), args.batch.train_batch_size, unit))}"


RULES: tuple[Rule, ...] = (
    train_batch_and_rollout_batch,
    train_batch_and_micro_batch,
    tokens_and_lengths,
    rollout_batch_and_engines,
)
