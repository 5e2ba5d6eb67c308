"""What a run is going to do, on which hardware, and whether its weights fit there; known before a model is loaded."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lightrft.args import Args, optimizer_steps, prompts_per_step
from lightrft.args.batching import samples_of
from lightrft.args.conditions import (
    gathers_once_a_step,
    has_4_bits,
    has_adapters,
    has_critic,
    has_kl,
    holds_all,
    is_off_policy,
    kl_adapts,
    kl_place,
    ref_shard_size,
)
from lightrft.engine_choice import told_of_engine
from lightrft.errors import Refused
from lightrft.hardware import DTYPES, Hardware, choose_precision, hardware, told_without_gpu
from lightrft.loop.disk import Need, disk_need
from lightrft.loop.due import told_of_saves
from lightrft.method import method, weighted_rewards
from lightrft.models import freezing
from lightrft.models.critic import count_critic, saved_head
from lightrft.models.load import count_adapters, count_frozen, count_in_4_bits, count_parameters, described_model
from lightrft.preflight import Inputs
from lightrft.ranks.watchdog import AT_LENGTH_S
from lightrft.recipe import kl_term, total_steps
from lightrft.runtime import runtime
from lightrft.strategy.deepspeed import effective_stage
from lightrft.strategy.memory import Layout, ModelStates, model_states

OTHERWISE = {
    **{"fsdp": False, "fsdp_cpu_offload": False, "zero_stage": 3, "zpg": 1},
    **{"hybrid_shard_size": None, "ref_shard_size": None, "use_mp_opt": False, "fsdp_reshard": "layer"},
}
WAYS = {  # what each changes of that
    "--zero_stage 3": {},
    "--fsdp": {"fsdp": True},
    "--zero_stage 3 --adam_offload": {"adam_offload": True},
    "--fsdp --adam_offload --ref_offload": {"fsdp": True, "adam_offload": True, "ref_offload": True},
    "--fsdp --fsdp_cpu_offload": {"fsdp": True, "fsdp_cpu_offload": True},
}


def plan(args: Args, inputs: Inputs) -> list[str]:
    """What the run is going to do, in lines for a person; `Refused` where its weights cannot fit the assumed GPUs."""
    steps, each, k = total_steps(args, len(inputs.prompts)), prompts_per_step(args), optimizer_steps(args)
    n, model = args.algorithm.n_samples_per_prompt, args.model
    about = runtime(args, videos=inputs.have_videos, takes_segments=inputs.takes_segments)
    chosen = ", ".join(f"{name} {value}" for name, value in about.items())
    rewards = weighted_rewards(inputs.rewards.weights)
    turns = f"{_bound(args)}{_counted(steps, 'step')} of {each} prompts x {n} samples"
    return [
        f"model {model.pretrain}; {chosen}",
        f"data {len(inputs.prompts)} prompts, {len(inputs.eval_prompts)} held out; reward {rewards}",
        *_frozen(args),
        *([inputs.first_prompt(), *inputs.looked_at] if args.run.dry_run else []),
        f"{turns}, {_counted(k, 'optimizer step')} each; estimator {args.algorithm.advantage_estimator}",
        *method(args, steps),
        *_critic(args, steps),
        *_sequences(args),
        *_adapted(args),
        *_filters(args),
        f"at most {model.prompt_max_len} + {model.max_new_tokens} of --max_len {model.max_len} tokens a sample",
        *_watchdog(args),
        *_memory(args),
        *_disk(args, inputs),
    ]


def plan_notices(args: Args, inputs: Inputs) -> list[str]:
    """What a user should know of the number of prompts and of the disk; `Refused` under --strict_args."""
    of_engine = told_of_engine(args, videos=inputs.have_videos)
    prompts, each = len(inputs.prompts), prompts_per_step(args)
    of_saves = told_of_saves(args, total_steps(args, prompts), each, prompts)
    notices = [*told_without_gpu(args), *of_engine, *_few_prompts(args, prompts), *of_saves]
    if args.run.assume_gpus is None and (shortage := _need(args, inputs).shortage()):
        notices.append(shortage)
    if notices and args.run.strict_args:
        raise Refused("\n".join(f"{notice} (refused under --strict_args)" for notice in notices))
    return notices


def _few_prompts(args: Args, prompts: int) -> list[str]:
    """A step that needs more prompts than there are takes some of them again."""
    each = prompts_per_step(args)
    if prompts >= each:
        return []
    fitting = f"--train_batch_size {samples_of(args, prompts)}" if args.batch.rollout_batch_size <= prompts else ""
    return [
        f"{prompts} prompt{'s' * (prompts != 1)} for steps of {each}: a step draws the same prompts about "
        f"{each / prompts:.2g} times; use {fitting or f'--rollout_batch_size {prompts}'} at most, or give more prompts"
    ]


def _need(args: Args, inputs: Inputs) -> Need:
    episode = math.ceil(len(inputs.prompts) / prompts_per_step(args))
    compute = DTYPES[choose_precision(args)[0].compute]
    return disk_need(args, total_steps(args, len(inputs.prompts)), episode, compute)


def _disk(args: Args, inputs: Inputs) -> Iterator[str]:
    """Not for assumed GPUs: another machine has another disk."""
    if args.run.assume_gpus is None:
        yield _need(args, inputs).line()


def _bound(args: Args) -> str:
    return "at most " if args.algorithm.dynamic_sampling and args.training.max_steps is None else ""


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' if count > 1 else ''}"


def _frozen(args: Args) -> Iterator[str]:
    """What trains of a model of which parts are frozen; refused where that cannot be."""
    if freezing.is_asked_for(args.model):
        yield freezing.told(described_model(args.model), args.model)
    if has_4_bits(args.model):
        numbers, size = count_in_4_bits(args.model)
        share = f"{numbers:,} of {count_parameters(args.model):,}"
        yield f"weights in 4 bits ({args.model.quant_type}): {share} in {size:,} bytes, all of them on each process"


def _critic(args: Args, steps: int) -> Iterator[str]:
    """Says whether the weights have its value head: a wrong name makes a new head, which is easily missed."""
    if has_critic(args):
        model, head = args.model, "from its weights" if saved_head(args.model) else "new, starts at 0"
        frozen = f"; the policy learns from step {n + 1} on" if (n := model.freezing_actor_steps) else ""
        frozen = frozen if n < steps else "; the policy never learns in this run"
        whole = "; all of it trains" if freezing.is_asked_for(model) else ""
        named = f"critic {model.critic_pretrain or model.pretrain}, value head {model.value_head_prefix} ({head})"
        yield f"{named}{whole}{frozen}"


def _sequences(args: Args) -> Iterator[str]:
    processes, sp_size = hardware(args).processes, args.distributed.sp_size
    if sp_size > 1:
        ranks = _counted(processes // sp_size, "data-parallel rank")
        yield f"{processes} processes, of which {sp_size} share each sequence in the training passes: {ranks}"


def _adapted(args: Args) -> Iterator[str]:
    """Nothing adapts the coefficient of a drift that is 0 by construction (algorithms S3.4, S6.4)."""
    a, samples = args.algorithm, samples_of(args, prompts_per_step(args))
    if kl_place(args) == "drift" and not is_off_policy(args) and has_kl(args):
        yield "one optimizer step per rollout step: the drift is exactly 0, and its coefficient stays as it is"
    elif kl_adapts(args) and samples > a.kl_horizon:
        yield f"the KL coefficient adapts to {samples} samples a step as to --kl_horizon {a.kl_horizon}"


def _filters(args: Args) -> Iterator[str]:
    """A line of the plan and no notice, since the defaults have a filter (algorithms S8)."""
    s = args.sampling
    asked = {"top_p": (s.top_p, 1.0), "top_k": (s.top_k, -1), "min_p": (s.min_p, 0.0)}
    filters = [f"--{name} {value:g}" for name, (value, off) in asked.items() if value != off]
    if filters:
        unfiltered = "trained on unfiltered log-probabilities: that bias stays"
        replayed = "trained on log-probabilities of what that keeps (--replay_sampling_mask)"
        yield f"sampled with {', '.join(filters)}, {replayed if args.engine.replay_sampling_mask else unfiltered}"


def _watchdog(args: Args) -> Iterator[str]:
    if args.run.watchdog_s is not None:
        seconds, first = args.run.watchdog_s, max(args.run.watchdog_s, AT_LENGTH_S)
        yield f"ends with exit code 3 after {seconds:g} s without any progress, before step 1 after {first:g} s"


def _memory(args: Args) -> Iterator[str]:
    """For assumed GPUs alone: on this machine the run itself shows it."""
    machine = hardware(args)
    if machine.gigabytes is None:
        return
    states = _states(args, machine)
    text = f"weights, gradients and optimizer take {states} of {machine.gigabytes:g} GB on each GPU"
    text += f", and {states.host / 1e9:.3g} GB of host memory for each" if states.host else ""
    if states.total > machine.gigabytes * 1e9:
        raise Refused(f"--assume_gpus {args.run.assume_gpus}: {text}; {_what_fits(args, machine)}")
    yield f"{text}; activations, logits and caches come on top"


def _layout(args: Args, processes: int) -> Layout:
    d, m = args.distributed, args.memory
    zero = 1 if holds_all(args, processes, choose_precision(args)[0].compute) else None if d.fsdp else d.zero_stage
    return Layout(
        ranks=processes,
        stage=None if zero is None else effective_stage(zero, processes),
        shard_size=d.hybrid_shard_size or processes,
        zpg=d.zpg,
        ref_size=ref_shard_size(args, processes),
        states_on_cpu=d.fsdp_cpu_offload,
        adam_on_cpu=m.adam_offload,
        masters_apart=m.use_mp_opt,
        once_a_step=gathers_once_a_step(args, processes),
        ref_on_cpu=m.ref_offload or d.fsdp_cpu_offload,
    )


def _states(args: Args, machine: Hardware) -> ModelStates:
    in_4_bits, their_bytes = count_in_4_bits(args.model)
    return model_states(
        count_parameters(args.model) + count_adapters(args.model) - in_4_bits,
        _layout(args, machine.processes),
        half=choose_precision(args)[0].compute != "fp32",
        adam=args.training.optimizer == "adamw",
        reference=kl_term(args).needs_reference and not has_adapters(args.model),
        frozen=count_frozen(args.model) - in_4_bits,
        critic=count_critic(args.model) if has_critic(args) else 0,
        average=args.training.enable_ema,
        in_4_bits=their_bytes,
    )


def _fits(args: Args, machine: Hardware) -> bool:
    return _states(args, machine).total <= (machine.gigabytes or 0) * 1e9


def _what_fits(args: Args, machine: Hardware) -> str:
    """The first of the other ways to hold the model that fits."""
    if args.distributed.fsdp_reshard == "step" and _fits(args.with_(fsdp_reshard="layer"), machine):
        return "use --fsdp_reshard layer"
    for flags, changes in WAYS.items():
        if _fits(args.with_(**OTHERWISE | changes), machine):
            typed = "--no-fsdp " if args.distributed.fsdp and not changes.get("fsdp") else ""
            whole = " --fsdp_reshard layer" if args.distributed.fsdp_reshard == "step" else ""
            return f"use {typed}{flags}{whole}"
    return "use a smaller model or larger GPUs"
