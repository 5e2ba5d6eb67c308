"""What the lengths, the data and the rewards need of each other."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.groups.data import GENERATED, any_generated
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Problem
from lightrft.args.surface import Args


def prompt_leaves_room(args: Args, world_size: int) -> Iterator[Finding]:
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


def some_reward(args: Args, world_size: int) -> Iterator[Finding]:
    given = args.rewards.reward_fn or args.model.reward_pretrain or args.model.remote_rm_url
    if not given and not any_generated(args.data.prompt_data):
        yield Problem(
            ("reward_fn", "reward_pretrain", "remote_rm_url", "prompt_data"),
            "there is no reward: give --reward_fn (a rule or file.py:function), --reward_pretrain (a reward model, not "
            "built yet), --remote_rm_url (a reward server, not built yet), or --prompt_data "
            f"{GENERATED}<task>, which brings its own verifier",
        )


def every_source_has_a_share(args: Args, world_size: int) -> Iterator[Finding]:
    shares, sources = len(args.data.prompt_data_probs), len(args.data.prompt_data)
    if shares and (shares != sources or sources == 1):
        needed = "has nothing to mix in one source; remove it" if sources == 1 else f"takes {sources}, one for each"
        yield Problem(
            ("prompt_data_probs", "prompt_data"),
            f"--prompt_data_probs has {shares} value{'s' if shares > 1 else ''} for {sources} source"
            f"{'s' if sources > 1 else ''} of --prompt_data; it {needed}",
        )


RULES: tuple[Rule, ...] = (prompt_leaves_room, some_reward, every_source_has_a_share)
