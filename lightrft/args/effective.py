"""What a flag that nobody set comes to, and from where, as far as that is known without looking at the hardware."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightrft.args.conditions import estimator, has_adapters, has_critic, has_kl, kl_place, policy_learning_rate
from lightrft.args.surface import FLAGS, Args

AUTO = "auto"  # decided by the hardware, the model or its tokenizer
Effect = tuple[Any, str]  # value, source


def effective(args: Args, flag: str) -> Effect:
    """The value that is going to be used, and its source; what was typed is what is used."""
    value, where = args.value(flag), args.sources[flag].where
    if where != "default" and value is not None:
        return value, where
    effect = EFFECTS[flag](args) if flag in EFFECTS else None
    if effect is not None:
        return effect
    unset = FLAGS[flag].record.unset
    return value, f"{where} ({unset})" if value is None and unset else where


def _aggregation(args: Args) -> Effect:
    return estimator(args).aggregation, _of_estimator(args)


def _kl_loss(args: Args) -> Effect:
    if not has_kl(args):
        return False, "follows --init_kl_coef"
    return kl_place(args) == "loss", _of_estimator(args)


def _kl_estimator(args: Args) -> Effect | None:
    own = estimator(args).kl == "reward" and kl_place(args) == "reward"
    return (args.algorithm.kl_estimator, _of_estimator(args)) if own else None


def _whitening(args: Args) -> Effect:
    return estimator(args).whitening == "part", _of_estimator(args)


def _of_estimator(args: Args) -> str:
    return f"default:{args.algorithm.advantage_estimator}"


def _bf16(args: Args) -> Effect:
    return (False, "follows --fp16") if args.distributed.fp16 else (AUTO, "default (by the hardware)")


def _critic(args: Args) -> Effect:
    return (args.model.pretrain, "follows --pretrain") if has_critic(args) else (None, "default (no critic)")


def _lora_rate(args: Args) -> Effect | None:
    if not has_adapters(args.model):
        return None
    typed = args.typed("actor_learning_rate")
    return policy_learning_rate(
        args
    ), "follows --actor_learning_rate" if typed else "default (ten times full training's)"


def _temperature(args: Args) -> Effect | None:
    constant = args.sampling.temperature_schedule == "constant"
    return (args.sampling.temperature, "follows --temperature") if constant else None


def _run_name(args: Args) -> Effect | None:
    name = Path(args.checkpoint.save_path).absolute().name
    return (name, "follows --save_path") if args.logging.use_wandb else None


def _follows(flag: str, *others: str) -> Callable[[Args], Effect]:
    return lambda args: (args.value(flag), f"follows --{' and --'.join(others)}")


def _by(what: str) -> Callable[[Args], Effect]:
    return lambda args: (AUTO, f"default (by {what})")


EFFECTS: dict[str, Callable[[Args], Effect | None]] = {
    "loss_agg_mode": _aggregation,
    "use_kl_loss": _kl_loss,
    "kl_estimator": _kl_estimator,
    "advantages_norm": _whitening,
    "kl_target": lambda args: (0.0, "default"),
    "bf16": _bf16,
    "critic_pretrain": _critic,
    "lora_learning_rate": _lora_rate,
    "bits": _follows("bits", "load_in_4bit"),
    "temperature_final": _temperature,
    "wandb_run_name": _run_name,
    "log_dir": _follows("log_dir", "save_path"),
    "ckpt_path": _follows("ckpt_path", "save_path"),
    "max_new_tokens": _follows("max_new_tokens", "max_len", "prompt_max_len"),
    "eval_batch_size": _follows("eval_batch_size", "rollout_batch_size"),
    "reference_key": lambda args: (args.data.label_key, "follows --label_key"),
    "attn_implementation": _by("the model"),
    "share_prompts": _by("the model"),
    "apply_chat_template": _by("the tokenizer"),
}
