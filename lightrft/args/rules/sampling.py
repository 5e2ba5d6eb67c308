"""From which tokens is sampled, and at which temperature."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.conditions import has_filter, replays_masks
from lightrft.args.field import as_text
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import Args


def final_temperature(args: Args, world_size: int) -> Iterator[Finding]:
    s = args.sampling
    if s.temperature_schedule != "constant" and s.temperature_final is None:
        yield Problem(
            ("temperature_schedule", "temperature_final"),
            f"--temperature_schedule {s.temperature_schedule} needs --temperature_final, the temperature at its end",
        )


def likeliest_tokens(args: Args, world_size: int) -> Iterator[Finding]:
    if args.sampling.top_k == 0:
        yield Problem(("top_k",), "--top_k 0 leaves no token to sample; use -1 (off) or at least 1")
    if args.sampling.top_k == 1 and args.algorithm.n_samples_per_prompt > 1:
        yield Notice(
            ("top_k", "n_samples_per_prompt"),
            "--top_k 1 always takes the likeliest token, so all samples of a prompt are alike and have nothing to "
            "learn from; use --top_k -1 or more than 1",
        )


def filter_of_fire(args: Args, world_size: int) -> Iterator[Finding]:
    s = args.sampling
    if s.use_fire and not has_filter(args):
        yield Notice(
            ("use_fire", "top_k", "top_p", "min_p", "first_token_temperature"),
            f"--use_fire at --first_token_temperature {as_text(s.first_token_temperature)} without a filter draws "
            "first tokens that are nearly noise; use --top_k 50, say",
        )


def masks_of_the_fused_head(args: Args, world_size: int) -> Iterator[Finding]:
    if args.memory.fused_linear_logprob and replays_masks(args):
        yield Problem(
            ("fused_linear_logprob", "replay_sampling_mask"),
            "--fused_linear_logprob knows no softmax over what sampling left, which --replay_sampling_mask needs; use "
            "one of them",
        )


RULES: tuple[Rule, ...] = (final_temperature, likeliest_tokens, filter_of_fire, masks_of_the_fused_head)
