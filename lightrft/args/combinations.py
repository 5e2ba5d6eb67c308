"""docs/combinations.md, made by asking the rules: `python -m lightrft.args.combinations > docs/combinations.md`."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

from lightrft.args.parse import parse
from lightrft.args.rules import findings
from lightrft.args.rules.finding import Finding
from lightrft.args.settings import Problem
from lightrft.args.surface import FLAGS, Flag

PROCESSES = 4
BASE = """--pretrain model --prompt_data data.jsonl --reward_fn exact --save_path out
 --rollout_batch_size 32 --n_samples_per_prompt 4 --train_batch_size 128"""
STRATEGIES = ("--zero_stage 1", "--zero_stage 2", "--zero_stage 3", "--fsdp")
HEAD = f"""# What combines with what

This page is generated, by asking the rules of `lightrft/args/rules/` about command lines for {PROCESSES} processes:
`python -m lightrft.args.combinations > docs/combinations.md`; a test fails when it is stale.
[distributed.md](distributed.md) says what the flags do.

*works*: nothing is said. *no effect*: a notice, which `--strict_args` turns into a refusal. *refused*: exit code 2. The
numbers lead to what is said.
"""


def page() -> str:
    said: list[str] = []
    table = [*_table(said), "", *_pairs(said)]
    notes = [f"{number}. {text}" for number, text in enumerate(said, 1)]
    return "\n".join([HEAD, *table, "", "## What is said", "", *notes, ""])


def examples() -> dict[str, str]:
    """Each flag of distribution and memory that is built, with a value; less those that choose the strategy."""
    shown = (flag for flag in FLAGS.values() if flag.group in ("distributed", "memory") and not flag.record.unbuilt)
    return {flag.name: _example(flag) for flag in shown if flag.name not in ("zero_stage", "fsdp")}


def _example(flag: Flag) -> str:
    if flag.is_switch:
        return f"--{flag.name}"
    choices = flag.record.allowed()
    return f"--{flag.name} {choices[-1] if choices else 2 if flag.kind.of is int else 600}"


def told(text: str) -> list[Finding]:
    return findings(parse(f"{BASE} {text}".split()), PROCESSES, strict=False)


def _table(said: list[str]) -> Iterator[str]:
    yield f"| | {' | '.join(f'`{strategy}`' for strategy in STRATEGIES)} |"
    yield "|---" * (len(STRATEGIES) + 1) + "|"
    for example in examples().values():
        cells = [_verdict(told(f"{strategy} {example}"), said) for strategy in STRATEGIES]
        yield f"| `{example}` | {' | '.join(cells)} |"


def _pairs(said: list[str]) -> Iterator[str]:
    """Two flags that work alone under a strategy, and not together."""
    yield "Pairs of these flags that work alone and not together; all others work wherever both do:\n"
    yield "| | | |\n|---|---|---|"
    for one, other in combinations(examples().values(), 2):
        for verdict, strategies in _clashes(one, other, said).items():
            where = "" if len(strategies) > 1 else f" with `{strategies[0]}`"
            yield f"| `{one}` | `{other}` | {verdict}{where} |"


def _clashes(one: str, other: str, said: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for strategy in STRATEGIES:
        alone = [told(f"{strategy} {flag}") for flag in (one, other)]
        together = told(f"{strategy} {one} {other}")
        if not any(alone) and together:
            found.setdefault(_verdict(together, said), []).append(strategy)
    return found


def _verdict(findings: list[Finding], said: list[str]) -> str:
    if not findings:
        return "works"
    said += [text for text in dict.fromkeys(finding.text for finding in findings) if text not in said]
    numbers = ", ".join(str(said.index(finding.text) + 1) for finding in findings)
    word = "refused" if any(isinstance(finding, Problem) for finding in findings) else "no effect"
    return f"{word} ({numbers})"


if __name__ == "__main__":
    print(page(), end="")
