"""What must come of a command line and its files: every value with its source, or every fault that must be named.

The rules between flags are written down here a second time, from the design: rollout_batch_size counts prompts,
train_batch_size samples; one of the two products divides the other; and so on.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fuzz_aliases import aliases
from fuzz_notices import Notice, due
from fuzz_surface import Field, fields
from fuzz_truth import ESTIMATORS, Fault, Good

from lightrft.args import presets

GPUS = re.compile(r"([1-9]\d*)x(\d+)GB", re.ASCII | re.IGNORECASE)


@dataclass
class Expected:
    layers: dict[str, list[Good]]  # by flag, the strongest last
    faults: list[Fault]
    values: dict[str, Any] = field(default_factory=dict)

    def notices(self) -> Counter[Notice]:
        """For a command line that is accepted."""
        typed = {name for name, layers in self.layers.items() if layers and layers[-1].typed}
        return due(fields(), self.values, typed)


def expect(settings: list[Good], faults: list[Fault]) -> Expected:
    """`settings` that stand in files and on the command line, weaker ones first."""
    known = fields()
    mode = _last("mode", settings, None)
    meant, contradictions = aliases(settings, faults)
    settings, faults = [*(_preset(mode) if mode else []), *settings, *meant], [*faults, *contradictions]
    estimator = _last("advantage_estimator", settings, "group_norm")
    own = [Good(name, value, f"default:{estimator}", typed=False) for name, value in ESTIMATORS[estimator].own.items()]
    layers: dict[str, list[Good]] = {name: [] for name in known}
    for setting in (*own, *settings):
        layers[setting.flag].append(setting)
    broken = {name for fault in faults for name in fault.flags}
    if "config" in broken:  # of a file that cannot be read nobody knows what it sets
        return Expected(layers, faults, {})
    missing = [f for f in known.values() if f.required and not layers[f.name] and f.name not in broken]
    faults = [*faults, *(Fault(f"--{f.name}", (f.name,)) for f in missing)]
    expected = Expected(layers, faults, _values(known, layers))
    broken.update(f.name for f in missing)
    expected.faults += [Fault(mark) for mark, rests_on in _rules(known, expected) if not broken & set(rests_on)]
    return expected


def _last(flag: str, settings: list[Good], default: Any) -> Any:
    return next((setting.value for setting in reversed(settings) if setting.flag == flag), default)


def _preset(mode: str) -> list[Good]:
    """The preset's file, read by PyYAML; a setting's line is the one that begins with its name."""
    path = Path(presets.FOLDER) / f"{mode}.yaml"
    lines = [line.split(":")[0].strip() for line in path.read_text().splitlines()]
    found = {name: value for group in yaml.safe_load(path.read_text()).values() for name, value in group.items()}
    return [Good(name, found[name], f"preset {path.name}:{lines.index(name) + 1}", typed=False) for name in found]


def _values(known: dict[str, Field], layers: dict[str, list[Good]]) -> dict[str, Any]:
    values = {name: layers[name][-1].value if layers[name] else known[name].default for name in known}
    folder = Path(values["save_path"] or "")
    in_reward = ESTIMATORS[values["advantage_estimator"]].kl == "reward" and not values["use_kl_loss"]
    derived = {
        "max_new_tokens": values["max_len"] - values["prompt_max_len"],
        "ckpt_path": str(folder / "checkpoints"),
        "log_dir": str(folder / "logs"),
        "eval_batch_size": values["rollout_batch_size"],
        "kl_estimator": "k1" if in_reward else "k3",
    }
    values.update({name: value for name, value in derived.items() if not layers[name]})
    return values


Rule = tuple[str, tuple[str, ...]]  # how the line begins, and the flags that the rule rests on


def _rules(known: dict[str, Field], expected: Expected) -> Iterator[Rule]:
    """The rules that the values break."""
    values = expected.values
    match = GPUS.fullmatch(values["assume_gpus"] or "")
    unreadable = values["assume_gpus"] is not None and (match is None or int(match[2]) == 0)
    world = int(match[1]) if match and not unreadable else 1
    if unreadable:
        yield "--assume_gpus", ("assume_gpus",)
    if world > 1:
        yield f".*training on {world} processes", ()
    yield from _about_unbuilt(known, expected)
    yield from _about_batches(values, world)
    yield from _about_algorithm(values, expected)
    yield from _about_sampling(values)
    yield from _about_the_rest(values)


def _about_unbuilt(known: dict[str, Field], expected: Expected) -> Iterator[Rule]:
    for name, entry in known.items():
        top = expected.layers[name][-1] if expected.layers[name] else None
        if entry.unbuilt and top and top.typed:
            yield f"--{name}" if top.where == "cli" else re.escape(f"{top.where}: {name}"), (name,)


def _about_batches(values: dict[str, Any], world: int) -> Iterator[Rule]:
    """Requests to engines come in prompts, optimizer steps in samples."""
    train, rollout, n = values["train_batch_size"], values["rollout_batch_size"], values["n_samples_per_prompt"]
    micro, span, sequence = values["micro_train_batch_size"], values["engine_tp_size"], values["sp_size"]
    for name in ("engine_tp_size", "sp_size"):
        if world % values[name]:
            yield f"--{name}", (name,)
    if None in (train, rollout):
        return
    world = 1  # more are refused, whatever the sizes are
    sizes = ("train_batch_size", "rollout_batch_size", "n_samples_per_prompt")
    if max(train, rollout * n) % min(train, rollout * n):
        yield "--train_batch_size", sizes
    if values["dynamic_sampling"] and values["max_gen_batches"] * rollout < max(rollout, train // n):
        yield "--max_gen_batches", (*sizes, "max_gen_batches", "dynamic_sampling")
    if train % (micro * max(1, world // sequence)):
        yield "--train_batch_size", (*sizes, "micro_train_batch_size")
    if rollout % max(1, world // span):
        yield "--rollout_batch_size", ("rollout_batch_size", "engine_tp_size")


def _typed(expected: Expected, name: str) -> bool:
    return bool(expected.layers[name]) and expected.layers[name][-1].typed


def _about_algorithm(values: dict[str, Any], expected: Expected) -> Iterator[Rule]:
    estimator, alone = ESTIMATORS[values["advantage_estimator"]], values["n_samples_per_prompt"] == 1
    if alone and estimator.group:
        yield "--n_samples_per_prompt", ("n_samples_per_prompt", "advantage_estimator")
    if alone and not estimator.group and values["dynamic_sampling"]:  # a group of one never varies
        yield "--dynamic_sampling", ("dynamic_sampling", "n_samples_per_prompt", "advantage_estimator")
    if values["use_kl_loss"] is False and values["init_kl_coef"] and estimator.kl == "loss":
        yield "--no-use_kl_loss", ("use_kl_loss", "init_kl_coef", "advantage_estimator")
    if 0 < values["high_entropy_token_ratio"] < 1 and estimator.per_row:
        yield "--high_entropy_token_ratio", ("high_entropy_token_ratio", "advantage_estimator")
    if values["is_correction"] != "off" and values["is_low"] and values["is_low"] > values["is_cap"]:
        yield "--is_low", ("is_low", "is_cap", "is_correction")
    low, high = values["is_low"] or 0, values["is_cap"]
    if values["is_correction"] in ("token_mask", "sequence_mask", "geometric") and not low < 1 < high:
        yield "--is_correction", ("is_low", "is_cap", "is_correction")
    typed = [name for name in ("clip_range", "clip_range_higher") if _typed(expected, name)]
    if values["use_clip_higher"] and typed and values["clip_range_higher"] <= values["clip_range"]:
        yield "--use_clip_higher", ("use_clip_higher", "clip_range", "clip_range_higher", "advantage_estimator")
    if values["use_fire"] and values["fire_mask_first_token"] and values["max_new_tokens"] == 1:
        yield "--fire_mask_first_token", ("fire_mask_first_token", "max_new_tokens", "max_len", "prompt_max_len")
    if estimator.critic and (not values["value_head_prefix"] or "." in values["value_head_prefix"]):
        yield "--value_head_prefix", ("value_head_prefix",)


def _about_sampling(values: dict[str, Any]) -> Iterator[Rule]:
    if values["top_k"] == 0:
        yield "--top_k", ("top_k",)
    if values["temperature_schedule"] != "constant" and values["temperature_final"] is None:
        yield "--temperature_schedule", ("temperature_schedule", "temperature_final")
    budget = values["max_new_tokens"]
    if values["overlong_buffer"] and 0 < budget < values["overlong_buffer_len"]:
        lengths = ("max_new_tokens", "max_len", "prompt_max_len")
        yield "--overlong_buffer_len", ("overlong_buffer_len", "overlong_buffer", *lengths)


def _about_the_rest(values: dict[str, Any]) -> Iterator[Rule]:
    prompt, total = values["prompt_max_len"], values["max_len"]
    if prompt >= total:
        yield "--prompt_max_len", ("prompt_max_len", "max_len")
    elif prompt + values["max_new_tokens"] > total:
        yield "--max_new_tokens", ("max_new_tokens", "prompt_max_len", "max_len")
    sources, shares = values["prompt_data"] or (), values["prompt_data_probs"]
    rewards = [name for name in ("reward_fn", "reward_pretrain", "remote_rm_url") if values[name]]
    if not rewards and not any(source.startswith("reasoning_gym:") for source in sources):
        yield "there is no reward", ("reward_fn", "reward_pretrain", "remote_rm_url", "prompt_data")
    if shares and (len(sources) == 1 or len(shares) != len(sources)):
        yield "--prompt_data_probs", ("prompt_data_probs", "prompt_data")
    if values["fp16"] and values["bf16"]:
        yield "--fp16", ("fp16", "bf16")
    if values["fp16"] and values["fsdp"]:
        yield "--fp16", ("fp16", "fsdp")
    if values["fsdp_cpu_offload"] and not values["fsdp"]:
        yield "--fsdp_cpu_offload", ("fsdp_cpu_offload", "fsdp")
