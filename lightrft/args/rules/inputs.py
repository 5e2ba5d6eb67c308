"""What data and rewards need of each other."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.groups.data import GENERATED, any_generated
from lightrft.args.rules.finding import Finding, Rule
from lightrft.args.settings import Problem
from lightrft.args.surface import Args


def sources_of_reward(args: Args, world_size: int) -> Iterator[Finding]:
    given = args.rewards.reward_fn or args.model.reward_pretrain or args.model.remote_rm_url
    if not given and not any_generated(args.data.prompt_data):
        yield Problem(
            ("reward_fn", "reward_pretrain", "remote_rm_url", "prompt_data"),
            "there is no reward: give --reward_fn (a rule or file.py:function), --reward_pretrain (a reward model, not "
            "built yet), --remote_rm_url (a reward server, not built yet), or --prompt_data "
            f"{GENERATED}<task>, which brings its own verifier",
        )


def shares_of_sources(args: Args, world_size: int) -> Iterator[Finding]:
    shares, sources = len(args.data.prompt_data_probs), len(args.data.prompt_data)
    if shares and (shares != sources or sources == 1):
        needed = "has nothing to mix in one source; remove it" if sources == 1 else f"takes {sources}, one for each"
        yield Problem(
            ("prompt_data_probs", "prompt_data"),
            f"--prompt_data_probs has {shares} value{'s' if shares > 1 else ''} for {sources} source"
            f"{'s' if sources > 1 else ''} of --prompt_data; it {needed}",
        )


RULES: tuple[Rule, ...] = (sources_of_reward, shares_of_sources)
