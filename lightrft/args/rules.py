"""What must hold between flags. Every broken rule is reported, with the values and with ones that would work."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from lightrft.args.batching import (
    batches_per_rollout,
    fits,
    legal_micro_batches,
    legal_train_batches,
)
from lightrft.args.estimators import estimator_defaults, estimator_kl, estimator_needs
from lightrft.args.field import as_text, items_of
from lightrft.args.groups.data import GENERATED, any_generated
from lightrft.args.settings import Notice, Problem
from lightrft.args.surface import FLAGS, Args, Flag
from lightrft.args.unbuilt import UNBUILT_CHOICES
from lightrft.errors import Refused

Finding = Problem | Notice
Rule = Callable[[Args, int], Iterator[Finding]]


def check(args: Args, world_size: int = 1) -> list[Notice]:
    """The notices, or Refused with all problems, one a line."""
    found = findings(args, world_size)
    problems = [entry for entry in found if isinstance(entry, Problem)]
    if problems:
        raise Refused("\n".join(map(str, problems)))
    return [entry for entry in found if isinstance(entry, Notice)]


def findings(args: Args, world_size: int) -> list[Finding]:
    found = [entry for rule in RULES for entry in rule(args, world_size)]
    return [_hardened(entry) for entry in found] if args.run.strict_args else found


def _hardened(entry: Finding) -> Problem:
    return Problem(entry.flags, f"{entry.text} (refused under --strict_args)") if isinstance(entry, Notice) else entry


def one_process(args: Args, world_size: int) -> Iterator[Finding]:
    if world_size > 1:
        yield Problem((), f"training on {world_size} processes is not built yet (distributed); start one process")


def built_choices(args: Args, world_size: int) -> Iterator[Finding]:
    for (flag, choice), part in UNBUILT_CHOICES.items():
        if args.value(flag) == choice:
            works = [name for name in FLAGS[flag].record.allowed() or () if (flag, name) not in UNBUILT_CHOICES]
            yield Problem((flag,), f"--{flag} {choice} is not built yet ({part}); use {' or '.join(works)}")


def train_batch_fits_rollout(args: Args, world_size: int) -> Iterator[Finding]:
    prompts, n, size = args.batch.rollout_batch_size, args.algorithm.n_samples_per_prompt, args.batch.train_batch_size
    flags = ("train_batch_size", "rollout_batch_size", "n_samples_per_prompt")
    if not fits(prompts * n, size):
        yield Problem(
            flags,
            f"--train_batch_size {size} neither divides nor is a multiple of --rollout_batch_size {prompts} x "
            f"--n_samples_per_prompt {n} = {prompts * n}; nearest: {_train_batches(args, world_size)}",
        )
    elif (k := batches_per_rollout(args)) > 1:
        yield Notice(
            flags,
            f"--train_batch_size {size}: each rollout of {prompts} x {n} = {prompts * n} samples is "
            f"trained on in {k} optimizer steps; --train_batch_size {prompts * n} is exactly on-policy",
        )


def train_batch_fits_micro(args: Args, world_size: int) -> Iterator[Finding]:
    size, micro = args.batch.train_batch_size, args.batch.micro_train_batch_size
    if size % (micro * world_size) == 0:
        return
    micros = legal_micro_batches(size, micro, world_size)
    other = f", or --micro_train_batch_size {_either(micros)}" if micros else ""
    yield Problem(
        ("train_batch_size", "micro_train_batch_size", "rollout_batch_size", "n_samples_per_prompt"),
        f"--train_batch_size {size} is not divisible by --micro_train_batch_size {micro} x {_processes(world_size)} = "
        f"{micro * world_size}; nearest: {_train_batches(args, world_size)}{other}",
    )


def rollout_batch_fits_world(args: Args, world_size: int) -> Iterator[Finding]:
    prompts = args.batch.rollout_batch_size
    if prompts % world_size:
        below = prompts // world_size * world_size
        nearest = [size for size in (below, below + world_size) if size]
        yield Problem(
            ("rollout_batch_size",),
            f"--rollout_batch_size {prompts} is not divisible by {_processes(world_size)}; nearest: "
            f"--rollout_batch_size {_either(nearest)}",
        )


def group_is_large_enough(args: Args, world_size: int) -> Iterator[Finding]:
    name, n = args.algorithm.advantage_estimator, args.algorithm.n_samples_per_prompt
    if n < 2 and "group" in estimator_needs(name):
        yield Problem(
            ("n_samples_per_prompt", "advantage_estimator"),
            f"--n_samples_per_prompt {n}: --advantage_estimator {name} compares the samples of one prompt, so it "
            f"needs at least --n_samples_per_prompt 2",
        )


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
    if not args.rewards.reward_fn and not any_generated(args.data.prompt_data):
        yield Problem(
            ("reward_fn", "prompt_data"),
            "there is no reward: give --reward_fn (a rule or file.py:function), --reward_pretrain (a reward model, not "
            "built yet), --remote_rm_url (a reward server, not built yet), or --prompt_data "
            f"{GENERATED}<task>, which brings its own verifier",
        )


def kl_has_a_place(args: Args, world_size: int) -> Iterator[Finding]:
    name, coefficient = args.algorithm.advantage_estimator, args.algorithm.init_kl_coef
    if coefficient > 0 and args.algorithm.use_kl_loss is False and estimator_kl(name) != "reward":
        yield Problem(
            ("use_kl_loss", "init_kl_coef", "advantage_estimator"),
            f"--no-use_kl_loss with --init_kl_coef {as_text(coefficient)}: --advantage_estimator {name} puts no KL "
            "into the reward, so KL has no place; use --init_kl_coef 0 or --use_kl_loss",
        )


def kl_in_loss_has_a_gradient(args: Args, world_size: int) -> Iterator[Finding]:
    algorithm = args.algorithm
    in_loss = algorithm.use_kl_loss is True or (
        algorithm.use_kl_loss is None and estimator_kl(algorithm.advantage_estimator) == "loss"
    )
    if algorithm.kl_estimator == "k1" and algorithm.init_kl_coef > 0 and in_loss:
        yield Notice(
            ("kl_estimator", "use_kl_loss", "init_kl_coef", "advantage_estimator"),
            "--kl_estimator k1 in the loss has an expected gradient of zero, so it is noise and no penalty; "
            "use --kl_estimator k3 or k2",
        )


def tokenizer_is_fast(args: Args, world_size: int) -> Iterator[Finding]:
    if args.model.disable_fast_tokenizer:
        yield Problem(
            ("disable_fast_tokenizer",),
            "--disable_fast_tokenizer can do nothing: transformers 5 ignores the choice, since it has one "
            "implementation of each tokenizer; remove it",
        )


def precision_is_one(args: Args, world_size: int) -> Iterator[Finding]:
    if args.distributed.fp16 and args.distributed.bf16:
        yield Problem(("fp16", "bf16"), "--fp16 and --bf16 exclude each other; use --bf16 alone, or --fp16 --no-bf16")
    if args.distributed.fp16 and args.distributed.fsdp:
        yield Problem(
            ("fp16", "fsdp"), "--fp16 needs loss scaling, which --fsdp has not; use --bf16 with --fsdp, or --no-fsdp"
        )


def offload_needs_fsdp(args: Args, world_size: int) -> Iterator[Finding]:
    if args.distributed.fsdp_cpu_offload and not args.distributed.fsdp:
        yield Problem(("fsdp_cpu_offload", "fsdp"), "--fsdp_cpu_offload needs --fsdp; add --fsdp or remove it")


def sampling_samples(args: Args, world_size: int) -> Iterator[Finding]:
    if args.sampling.top_k == 0:
        yield Problem(("top_k",), "--top_k 0 leaves no token to sample; use -1 (off) or at least 1")
    if args.sampling.top_k == 1 and args.algorithm.n_samples_per_prompt > 1:
        yield Notice(
            ("top_k", "n_samples_per_prompt"),
            "--top_k 1 always takes the likeliest token, so all samples of a prompt are alike and have nothing to "
            "learn from; use --top_k -1 or more than 1",
        )


def typed_flags_matter(args: Args, world_size: int) -> Iterator[Finding]:
    for flag in FLAGS.values():
        reason = flag.record.matters(args) if flag.record.matters and args.typed(flag.name) else None
        if reason:
            shown = f"--{flag.name} {as_text(args.value(flag.name))}" if not flag.is_switch else f"--{flag.name}"
            yield Notice((flag.name,), f"{shown} cannot matter: {reason}")


def typed_values_are_usual(args: Args, world_size: int) -> Iterator[Finding]:
    """An estimator with a default of its own has another scale, and 0 switches something off: no notice for these."""
    own = estimator_defaults(args.algorithm.advantage_estimator)
    for flag in FLAGS.values():
        if flag.record.recommended and args.typed(flag.name) and flag.name not in own:
            yield from _unusual(flag, args)


def _unusual(flag: Flag, args: Args) -> Iterator[Finding]:
    low, high = flag.record.recommended or (0, 0)
    value = args.value(flag.name)
    if any(item and not low <= item <= high for item in items_of(value)):
        yield Notice(
            (flag.name,), f"--{flag.name} {as_text(value)} is outside the recommended range {low:g} to {high:g}"
        )


def _train_batches(args: Args, world_size: int) -> str:
    samples = args.batch.rollout_batch_size * args.algorithm.n_samples_per_prompt
    unit = args.batch.micro_train_batch_size * world_size
    return f"--train_batch_size {_either(legal_train_batches(samples, args.batch.train_batch_size, unit))}"


def _either(sizes: list[int]) -> str:
    return " or ".join(map(str, sizes))


def _processes(world_size: int) -> str:
    return f"{world_size} process{'es' if world_size > 1 else ''}"


RULES: tuple[Rule, ...] = (
    one_process,
    built_choices,
    train_batch_fits_rollout,
    train_batch_fits_micro,
    rollout_batch_fits_world,
    group_is_large_enough,
    prompt_leaves_room,
    some_reward,
    kl_has_a_place,
    kl_in_loss_has_a_gradient,
    tokenizer_is_fast,
    precision_is_one,
    offload_needs_fsdp,
    sampling_samples,
    typed_flags_matter,
    typed_values_are_usual,
)
