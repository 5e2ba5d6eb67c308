"""Every notice that an accepted command line must come with, and no other: (flag, what is said of it).

"dead": the flag was typed and cannot matter in this configuration. "range": it is outside its recommended range.
"odd": it works and is hardly what one wants. Of the two flags of splits nothing is foretold here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from fuzz_surface import Field
from fuzz_truth import ESTIMATORS

UNTOLD = ("prompt_split", "eval_split")
CLIPS = ("clip_range", "clip_range_higher")
ON_POLICY = (*CLIPS, "dual_clip", "eps_clip", "use_clip_higher")  # with one optimizer step the ratio is exactly 1
EVALUATION = ("eval_steps", "max_eval_samples", "eval_temperature", "eval_batch_size")
Notice = tuple[str, str]


def told(lines: Iterable[str]) -> Counter[Notice]:
    """What the program says."""
    found = [(re.match(r"--(\w+)", line), line) for line in lines]
    return Counter((match[1], _sort(line)) if match else ("", line) for match, line in found if _is_told(match))


def _is_told(match: re.Match[str] | None) -> bool:
    return match is None or match[1] not in UNTOLD


def _sort(line: str) -> str:
    if " cannot matter" in line:
        return "dead"
    return "range" if "outside the recommended range" in line else "odd"


def due(known: dict[str, Field], values: dict[str, Any], typed: set[str]) -> Counter[Notice]:
    """What must be said."""
    named = [(flag, "dead") for flag in {*_dead(values), *_dead_elsewhere(values)} & typed]
    ranges = [(flag, "range") for flag in typed - ESTIMATORS[values["advantage_estimator"]].own.keys()]
    unusual = [notice for notice in ranges if _unusual(known[notice[0]], values[notice[0]])]
    return Counter([*named, *unusual, *_odd(values, typed)])


def steps(values: dict[str, Any]) -> int:
    """Optimizer steps of a rollout step."""
    samples = values["rollout_batch_size"] * values["n_samples_per_prompt"]
    return max(1, samples // values["train_batch_size"]) * values["max_epochs"]


def _unusual(field: Field, value: Any) -> bool:
    """0 and null switch something off."""
    low, high = field.recommended or (0, 0)
    numbers = value if isinstance(value, tuple) else (value,)
    return field.recommended is not None and any(number and not low <= number <= high for number in numbers)


def _dead(values: dict[str, Any]) -> Iterator[str]:
    """Flags of the algorithm that cannot matter."""
    estimator, on_policy = ESTIMATORS[values["advantage_estimator"]], steps(values) == 1
    yield from estimator.ignores
    yield from _dead_in_kl(values, on_policy=on_policy)
    if on_policy:
        yield from ON_POLICY
    if estimator.kl != "reward":
        yield "gamma"
    if not estimator.critic:
        yield from ("critic_pretrain", "freezing_actor_steps", "value_head_prefix", "critic_learning_rate", "lambd")
    if not estimator.critic or on_policy:
        yield "value_clip"
    if not estimator.drift or on_policy or values["init_kl_coef"] == 0:
        yield "cpgd_drift_cap"
    if estimator.drift and on_policy and not values["use_kl_loss"]:
        yield "init_kl_coef"
    if values["advantages_norm"]:  # all four are normalised already
        yield "advantages_norm"
    if not values["dynamic_sampling"]:
        yield "max_gen_batches"
    if not values["overlong_buffer"]:
        yield from ("overlong_buffer_len", "overlong_buffer_penalty_factor")
    if values["is_correction"] == "off":
        yield from ("is_cap", "is_low")


def _dead_in_kl(values: dict[str, Any], *, on_policy: bool) -> Iterator[str]:
    """A drift replaces the KL to the reference but for --use_kl_loss; on-policy it is 0, and adapts to nothing."""
    drift, is_off = ESTIMATORS[values["advantage_estimator"]].drift, values["init_kl_coef"] == 0
    if is_off or (drift and not values["use_kl_loss"]):
        yield "kl_estimator"
    if is_off or (drift and on_policy):
        yield from ("kl_target", "kl_horizon")
    if not values["kl_target"]:
        yield "kl_horizon"
    if is_off and values["use_kl_loss"]:
        yield "use_kl_loss"


def _dead_elsewhere(values: dict[str, Any]) -> Iterator[str]:
    if values["temperature_schedule"] == "constant":
        yield from ("temperature_final", "temperature_schedule_steps")
    if not values["use_fire"]:
        yield from ("first_token_temperature", "fire_mask_first_token")
    compares = ESTIMATORS[values["advantage_estimator"]].group  # and takes the mean of what it compares off
    if not values["reward_running_norm"] or (compares and not values["reward_clip"]):
        yield "reward_running_norm_minus_mean"
    if values["max_steps"] is not None:
        yield "num_episodes"
    if values["lr_warmup_steps"] is not None:
        yield "lr_warmup_ratio"
    if values["optimizer"] == "sgd":
        yield from ("adam_betas", "adam_epsilon")
    if values["fsdp"]:
        yield "zero_stage"
    if not _scores(values) and values["micro_train_batch_size"] == 1:
        yield "share_prompts"
    yield from _dead_in_reports(values)


def _scores(values: dict[str, Any]) -> bool:
    """Whether any model scores the samples of a prompt together before the policy learns."""
    drift = ESTIMATORS[values["advantage_estimator"]].drift
    has_reference = values["init_kl_coef"] > 0 and not (drift and not values["use_kl_loss"])
    return has_reference or steps(values) > 1 or 0 < values["high_entropy_token_ratio"] < 1


def _dead_in_reports(values: dict[str, Any]) -> Iterator[str]:
    if not values["eval_data"]:
        yield from EVALUATION
    if not values["use_wandb"]:
        yield from ("wandb_org", "wandb_run_name")
    if not values["save_trajectories"]:
        yield "num_trajectories_to_save"
    if values["max_steps"] is not None:
        if max(values["profile_steps"], default=0) > values["max_steps"]:
            yield "profile_steps"
        yield from (flag for flag in ("eval_steps", "save_steps") if (values[flag] or 0) > values["max_steps"])
    sources = (*values["prompt_data"], *values["eval_data"])
    if all(source.startswith("reasoning_gym:") for source in sources):
        yield from ("input_key", "label_key", "reference_key", "source_key", "on_bad_row")
    if values["reference_key"] is not None:
        yield "label_key"
    if values["quiet"]:
        yield "logging_steps"


def _odd(values: dict[str, Any], typed: set[str]) -> Iterator[Notice]:
    samples = values["rollout_batch_size"] * values["n_samples_per_prompt"]
    if samples > values["train_batch_size"]:
        yield "train_batch_size", "odd"
    if values["top_k"] == 1 and values["n_samples_per_prompt"] > 1:
        yield "top_k", "odd"
    if values["advantage_estimator"] == "gspo":
        yield from ((flag, "odd") for flag in CLIPS if values[flag] > 0.05)
    if ESTIMATORS[values["advantage_estimator"]].critic:
        if values["actor_learning_rate"] >= values["critic_learning_rate"]:
            yield "actor_learning_rate", "odd"
        if values["max_steps"] is not None and values["freezing_actor_steps"] >= values["max_steps"]:
            yield "freezing_actor_steps", "odd"
    yield from _odd_kl(values, max(samples, values["train_batch_size"]), typed)
    own_clips = not {"clip_range", "clip_range_higher"} & typed
    if values["use_clip_higher"] and own_clips and values["clip_range_higher"] <= values["clip_range"]:
        yield "use_clip_higher", "odd"


def _odd_kl(values: dict[str, Any], samples: int, typed: set[str]) -> Iterator[Notice]:
    """k1 has no gradient in a loss, and only k1 has the right one in the reward."""
    place = "loss" if values["use_kl_loss"] else ESTIMATORS[values["advantage_estimator"]].kl
    wrong = {"loss": values["kl_estimator"] == "k1", "reward": values["kl_estimator"] != "k1"}
    if values["init_kl_coef"] > 0 and wrong.get(place):
        yield "kl_estimator", "odd"
    adapts = "kl_horizon" not in _dead_in_kl(values, on_policy=steps(values) == 1)
    if adapts and {"kl_target", "kl_horizon"} & typed and samples > values["kl_horizon"]:
        yield "kl_horizon", "odd"
