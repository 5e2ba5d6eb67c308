"""How many samples a prompt needs, how many prompts a step may draw, and which of the tokens count."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.batching import prompts_per_step
from lightrft.args.conditions import compares_samples, estimator, needs_entropy
from lightrft.args.field import as_text
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Problem
from lightrft.args.surface import Args


def size_of_groups(args: Args, world_size: int) -> Iterator[Finding]:
    name, n = args.algorithm.advantage_estimator, args.algorithm.n_samples_per_prompt
    if n < 2 and compares_samples(args):
        yield Problem(
            ("n_samples_per_prompt", "advantage_estimator"),
            f"--n_samples_per_prompt {n}: --advantage_estimator {name} compares the samples of one prompt, so it "
            f"needs at least --n_samples_per_prompt 2",
        )


def varied_groups(args: Args, world_size: int) -> Iterator[Finding]:
    a = args.algorithm
    if a.dynamic_sampling and a.n_samples_per_prompt < 2 and not compares_samples(args):
        yield Problem(
            ("dynamic_sampling", "n_samples_per_prompt", "advantage_estimator"),
            f"--dynamic_sampling keeps prompts whose rewards differ, and with --n_samples_per_prompt "
            f"{a.n_samples_per_prompt} none can; use --n_samples_per_prompt 2 or --no-dynamic_sampling",
        )


def generated_batches(args: Args, world_size: int) -> Iterator[Finding]:
    a, rollout, needed = args.algorithm, args.batch.rollout_batch_size, prompts_per_step(args)
    if a.dynamic_sampling and a.max_gen_batches * rollout < needed:
        batches = -(-needed // rollout)
        yield Problem(
            ("max_gen_batches", "dynamic_sampling", "rollout_batch_size", "train_batch_size", "n_samples_per_prompt"),
            f"--max_gen_batches {a.max_gen_batches} of --rollout_batch_size {rollout} prompts never fill a step of "
            f"{needed}; use --max_gen_batches {3 * batches}, at least {batches}",
        )


def share_of_tokens(args: Args, world_size: int) -> Iterator[Finding]:
    name, ratio = args.algorithm.advantage_estimator, args.algorithm.high_entropy_token_ratio
    if needs_entropy(args) and estimator(args).per_row:
        yield Problem(
            ("high_entropy_token_ratio", "advantage_estimator"),
            f"--high_entropy_token_ratio {as_text(ratio)}: --advantage_estimator {name} has one ratio for all tokens "
            "of a response; use --high_entropy_token_ratio 0 or --advantage_estimator group_norm",
        )


RULES: tuple[Rule, ...] = (size_of_groups, varied_groups, generated_batches, share_of_tokens)
