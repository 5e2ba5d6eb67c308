"""A command line that is well, and how to read what is refused."""

from __future__ import annotations

from pathlib import Path

from flags_over import flags_over

from lightrft.args import Args, check, parse
from lightrft.errors import Refused

REQUIRED = "--pretrain tiny --prompt_data add.jsonl --save_path out --rollout_batch_size 4 --train_batch_size 16"
BASE = f"{REQUIRED} --reward_fn last_number"


def parsed(text: str = "") -> Args:
    return parse(flags_over(BASE, text))


def from_yaml(folder: Path, text: str, more: str = "") -> Args:
    (folder / "run.yaml").write_text(text)
    return parsed(f"--config {folder}/run.yaml {more}")


def refusal(action, *args, **kwargs) -> list[str]:
    """The lines of the refusal that `action(*args)` must end in."""
    try:
        action(*args, **kwargs)
    except Refused as refused:
        return str(refused).splitlines()
    raise AssertionError("nothing was refused")


def refused(text: str) -> list[str]:
    return refusal(parsed, text)


def notices(text: str = "") -> list[str]:
    return [str(notice) for notice in check(parsed(text))]


def broken_rules(text: str, world_size: int = 1) -> list[str]:
    args = parsed(text)
    return refusal(check, args, world_size, strict=args.run.strict_args)
