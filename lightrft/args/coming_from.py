"""docs/coming_from.md, made from peers.csv: `python -m lightrft.args.coming_from > docs/coming_from.md`."""

from __future__ import annotations

from collections.abc import Iterator

from lightrft.args.peers import PEERS, Peer
from lightrft.args.surface import NAMES
from lightrft.args.unbuilt import UNBUILT

HEAD = """# Coming from TRL, verl or OpenRLHF

What their flags and settings are called here. This page is generated: `python -m lightrft.args.coming_from >
docs/coming_from.md`; a test fails when it is stale. A name of theirs on the command line, or in a YAML file, nested or
flat, is refused with the line that stands here; a choice without a note is taken for ours. Flags marked * are not built
yet. Names that are the same and mean the same, as most of OpenRLHF's do, are left out.

Three differences decide most of a translation:

* `--rollout_batch_size` counts prompts and `--train_batch_size` counts samples. verl's `train_batch_size` is the former
  and its `ppo_mini_batch_size`, times the samples of a prompt, the latter. There is no `gradient_accumulation_steps`.
* An estimator brings its advantage, its loss, its aggregation and its defaults: `--advantage_estimator gspo` is all.
* `--init_kl_coef` is 0.001 unless given; TRL's default is 0.
"""
TRAINERS = {
    "TRL": "TRL: `GRPOConfig`, `ModelConfig`, `ScriptArguments`",
    "verl": "verl: `ppo_trainer.yaml`",
    "EasyR1": "EasyR1, where it differs from verl",
    "OpenRLHF": "OpenRLHF: `train_ppo_ray`",
}


def page() -> str:
    return "\n".join([HEAD, *(line for trainer, title in TRAINERS.items() for line in _section(trainer, title))])


def _section(trainer: str, title: str) -> Iterator[str]:
    rows = [row for row in PEERS if row.trainer == trainer]
    yield f"## {title}\n\n| theirs | here | note |\n|---|---|---|"
    yield from (_row(row) for row in rows if row.ours != row.name or row.note)
    yield ""


def _row(row: Peer) -> str:
    name, _, value = row.name.partition("=")
    theirs = f"`{value}`, a choice" if value and name == row.flag else f"`{' '.join(filter(None, (name, value)))}`"
    return f"| {theirs} | {_ours(row) or 'none'} | {row.note} |"


def _ours(row: Peer) -> str:
    later = " *" if NAMES.get(row.flag) in UNBUILT else ""
    return f"`--{row.ours}`{later}" if row.ours else ""


if __name__ == "__main__":
    print(page(), end="")
