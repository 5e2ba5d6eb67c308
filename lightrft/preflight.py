"""What can be refused before a model is loaded or a file written: paths, data, rewards."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.args import Args
from lightrft.errors import Refused
from lightrft.models.load import check_positions, load_tokenizer
from lightrft.prompts.dataset import load_prompts
from lightrft.prompts.encoding import encode_prompts
from lightrft.rewards.combine import CombinedReward, build_rewards
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Inputs:
    tokenizer: PreTrainedTokenizerBase
    prompts: list[Prompt]
    eval_prompts: list[Prompt]
    rewards: CombinedReward


def check_inputs(args: Args) -> Inputs:
    """Everything that a run reads, read; or Refused with one line."""
    for flag in ("save_path", "ckpt_path", "log_dir", "use_tensorboard"):
        if args.value(flag) is not None:
            _check_writable(flag, Path(args.value(flag)))
    _check_unused(args)
    _check_strategy(args)
    tokenizer = load_tokenizer(args.model)
    check_positions(args.model)
    prompts = load_prompts(args.data.prompt_data, args.data.prompt_split, args.data)
    rewards = build_rewards(args.rewards.reward_fn, args.rewards.reward_weights, prompts)
    held_out = _held_out(args)
    if held_out:
        _check_judged(args, held_out)
    return Inputs(
        tokenizer,
        _encode(args, prompts, tokenizer, "--prompt_data"),
        _encode(args, held_out, tokenizer, "--eval_data"),
        rewards,
    )


def _held_out(args: Args) -> list[Prompt]:
    """None without `--eval_data`."""
    if not args.evaluation.eval_data:
        return []
    prompts = load_prompts(args.evaluation.eval_data, args.evaluation.eval_split, args.data, flag="--eval_data")
    return prompts[: args.evaluation.max_eval_samples]


def _encode(args: Args, prompts: list[Prompt], tokenizer: PreTrainedTokenizerBase, flag: str) -> list[Prompt]:
    return encode_prompts(
        prompts,
        tokenizer,
        apply_chat_template=args.data.apply_chat_template,
        prompt_max_len=args.model.prompt_max_len,
        flag=flag,
    )


def _check_writable(flag: str, path: Path) -> None:
    """Without making the folder: a refused run leaves nothing behind."""
    nearest = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise Refused(f"--{flag} {path}: {nearest} is a file, not a folder; choose another path")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise Refused(f"--{flag} {path}: {nearest} cannot be written to; choose another path or change its permissions")


def _check_unused(args: Args) -> None:
    """A second run into the same folder would mix with or overwrite the first one."""
    metrics = Path(args.logging.log_dir) / "metrics.jsonl"
    marks = [Path(args.checkpoint.save_path) / name for name in ("summary.json", "config.json")]
    found = [path for path in (metrics, *marks) if path.is_file() and path.stat().st_size]
    found += Path(args.checkpoint.ckpt_path).glob("step_*")
    if found and not args.checkpoint.load_checkpoint:
        raise Refused(
            f"--save_path {args.checkpoint.save_path} already holds a run or a model ({found[0]}); "
            "go on with a run by --load_checkpoint, or choose another --save_path"
        )


def _check_strategy(args: Args) -> None:
    if not args.distributed.fsdp and find_spec("deepspeed") is None:
        raise Refused("DeepSpeed is not installed: `pip install deepspeed==0.19.8`, or train with --fsdp")


def _check_judged(args: Args, held_out: list[Prompt]) -> None:
    """The rewards must be able to judge the held-out prompts too."""
    try:
        build_rewards(args.rewards.reward_fn, args.rewards.reward_weights, held_out)
    except Refused as refused:
        raise Refused(f"--eval_data {' '.join(args.evaluation.eval_data)}: {refused}") from refused
