"""How the tokens of prompt and response fit each other."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Problem
from lightrft.args.surface import Args


def lengths(args: Args, world_size: int) -> Iterator[Finding]:
    prompt, total, budget = args.model.prompt_max_len, args.model.max_len, args.model.max_new_tokens
    if prompt >= total:
        yield Problem(
            ("prompt_max_len", "max_len"),
            f"--prompt_max_len {prompt} leaves no room for a response in --max_len {total}; "
            f"use --prompt_max_len {total // 2} or --max_len {2 * prompt}",
        )
    elif budget > total - prompt:
        yield Problem(
            ("max_new_tokens", "max_len", "prompt_max_len"),
            f"--max_new_tokens {budget} does not fit into --max_len {total} - --prompt_max_len {prompt} = "
            f"{total - prompt}; use --max_new_tokens {total - prompt} or --max_len {prompt + budget}",
        )


def overlong_buffer(args: Args, world_size: int) -> Iterator[Finding]:
    a, budget = args.algorithm, args.model.max_new_tokens
    if a.overlong_buffer and 0 < budget < a.overlong_buffer_len:
        yield Problem(
            ("overlong_buffer_len", "overlong_buffer", "max_new_tokens", "max_len", "prompt_max_len"),
            f"--overlong_buffer_len {a.overlong_buffer_len} is longer than the response budget of {budget} tokens; use "
            f"--overlong_buffer_len {max(1, budget // 4)}",
        )


def trained_tokens(args: Args, world_size: int) -> Iterator[Finding]:
    s, budget = args.sampling, args.model.max_new_tokens
    if s.use_fire and s.fire_mask_first_token and budget == 1:
        yield Problem(
            ("fire_mask_first_token", "max_new_tokens", "max_len", "prompt_max_len"),
            f"--fire_mask_first_token leaves nothing of --max_new_tokens {budget} to train on; use --max_new_tokens 2 "
            "or more",
        )


RULES: tuple[Rule, ...] = (lengths, overlong_buffer, trained_tokens)
