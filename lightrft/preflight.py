"""What can be refused before a model is loaded or a file written: paths, data, rewards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from lightrft.algorithms.estimator import load_estimator
from lightrft.args import Args
from lightrft.args.conditions import has_4_bits, has_adapters, holds_all
from lightrft.args.groups.data import have_splits
from lightrft.args.hardware import processes_of
from lightrft.errors import Refused
from lightrft.hardware import choose_precision
from lightrft.loop.run_folders import check_folders
from lightrft.loop.structure import check_resumed
from lightrft.model_checks import check_models
from lightrft.models import adapter_files, quantised
from lightrft.models.load import check_what_trains
from lightrft.models.processor import load_vision, told_of_pixels
from lightrft.models.suitable import check_model, check_tokens, dead_ends, end_token_ids
from lightrft.models.tokenizer import load_tokenizer
from lightrft.prompts.bad_rows import BadRows, origins
from lightrft.prompts.dataset import load_prompts
from lightrft.prompts.encoder import Encoder
from lightrft.prompts.encoding import encode_prompts
from lightrft.prompts.looking import look_at_some
from lightrft.prompts.media.admission import Admission, admitted, idle_flags
from lightrft.prompts.media.decoding import MediaLimits, media_of
from lightrft.prompts.remarks import remarks_on_media
from lightrft.prompts.shares import check_shares, first_of_each
from lightrft.rewards.combine import CombinedReward, build_rewards
from lightrft.track.wandb import check as check_wandb
from lightrft.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lightrft.prompts.vision import Vision


@dataclass(frozen=True)
class Inputs:
    encoder: Encoder
    prompts: list[Prompt]
    eval_prompts: list[Prompt]
    rewards: CombinedReward
    skipped: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    looked_at: list[str] = field(default_factory=list)  # by --dry_run
    takes_segments: bool = True  # whether the policy's rows may hold several sequences, where that is asked for or open

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.encoder.tokenizer

    @property
    def have_videos(self) -> bool:
        return any(prompt.videos for prompt in (*self.prompts, *self.eval_prompts))

    def text_ids(self) -> tuple[int, ...]:
        """Tokens of the first prompt that need no image: what a model is tried on."""
        request = self.encoder.request(self.prompts[0], ())
        unseen = self.encoder.vision.placeholders if self.encoder.vision else ()
        return tuple(id for id in request.prompt_ids if id not in unseen)

    def first_prompt(self) -> str:
        """The text that the model reads, in one line that shows white space."""
        first = self.prompts[0]
        length, text = len(self.encoder.request(first, ()).prompt_ids), self.encoder.as_the_model_sees(first)
        return f"first prompt {first.where}, {length} tokens, reference {first.reference!r}: {text!r}"


def check_inputs(args: Args, *, first: bool = True) -> Inputs:
    """Reads everything that a run reads. Raises `Refused`. The first process looks after the run's own folders."""
    if first:
        check_folders(args)
        check_wandb(args.logging)
    _check_strategy(args)
    _check_attention(args)
    _check_adapters(args)
    load_estimator(args.algorithm.advantage_estimator)
    tokenizer = load_tokenizer(args.model)
    check_model(args.model)
    of_rank = check_what_trains(args.model)
    if first:
        check_resumed(args)
    encoder = Encoder(tokenizer, _vision(args, tokenizer), args.data.dataloader_num_workers)
    takes_segments = check_models(args, tokenizer)
    rows, held_out_rows = (BadRows(flag, args.data.on_bad_row == "skip") for flag in ("--prompt_data", "--eval_data"))
    admission = Admission(
        encoder.vision is not None, args.multimodal.mixed_mm_data, args.engine.limit_mm_image_per_prompt
    )
    prompts = admitted(_training_prompts(args, rows), admission, rows)
    rewards = build_rewards(args.rewards.reward_fn, args.rewards.reward_weights, prompts)
    prompts = _judgeable(rewards, prompts, rows)
    held_out = admitted(_held_out_prompts(args, held_out_rows), admission, held_out_rows)
    if held_out:
        _check_judged(args, rewards, held_out)
        held_out = _judgeable(rewards, held_out, held_out_rows)
    prompts = _from_a_readable_one(_encode(args, prompts, encoder, rows), encoder, rows)
    check_shares(prompts, args.data.prompt_data, args.data.prompt_data_probs)
    held_out = _encode(args, held_out, encoder, held_out_rows)
    check_tokens(args.model, tokenizer, [*prompts, *held_out])
    (prompts, looked_at), (held_out, held_out_looked_at) = (
        _looked_at(args, each, encoder, bad) for each, bad in ((prompts, rows), (held_out, held_out_rows))
    )
    idle = [*idle_flags(args, [*prompts, *held_out]), *_of_pixels(args, encoder.vision, [*prompts, *held_out])]
    notices = _notices(args, tokenizer, [*of_rank, *rows.notices, *held_out_rows.notices, *idle])
    skipped, lines = [*rows.summary(), *held_out_rows.summary()], [*looked_at, *held_out_looked_at]
    return Inputs(encoder, prompts, held_out, rewards, skipped, notices, lines, takes_segments)


def _vision(args: Args, tokenizer: PreTrainedTokenizerBase) -> Vision | None:
    limits = MediaLimits(args.multimodal.max_pixels, args.multimodal.fps, args.engine.limit_mm_image_per_prompt)
    read, apply_chat_template = partial(media_of, limits=limits), args.data.apply_chat_template
    return load_vision(args.model, args.multimodal.processor, tokenizer, read, apply_chat_template)


def _notices(args: Args, tokenizer: PreTrainedTokenizerBase, others: Sequence[str]) -> list[str]:
    """What the user should know and may go on with; refused under --strict_args."""
    templated = bool(tokenizer.chat_template) and args.data.apply_chat_template is not False
    ends = dead_ends(args.model, tokenizer, args.sampling.stop, templated)
    notices = list(dict.fromkeys([*ends, *_not_held_out(args), *others]))
    if notices and args.run.strict_args:
        raise Refused("\n".join(f"{notice} (refused under --strict_args)" for notice in notices))
    return notices


def _not_held_out(args: Args) -> list[str]:
    """Sources of `--eval_data` that are trained on. Links are followed; another split of a source is another source."""
    trained = {os.path.realpath(source) for source in args.data.prompt_data}
    one_split = args.data.prompt_split == args.evaluation.eval_split
    both = [
        source
        for source in args.evaluation.eval_data
        if os.path.realpath(source) in trained and (one_split or not have_splits([source]))
    ]
    return [f"--eval_data {source} is trained on as --prompt_data: its accuracy is not held out" for source in both]


def _training_prompts(args: Args, bad: BadRows) -> list[Prompt]:
    data = args.data
    prompts = load_prompts(data.prompt_data, data.prompt_split, data, bad=bad)
    return first_of_each(prompts, data.max_samples, data.prompt_data_probs)


def _judgeable(rewards: CombinedReward, prompts: list[Prompt], bad: BadRows) -> list[Prompt]:
    """The prompts that the rules among the rewards can judge; the others are bad rows."""
    good = []
    for prompt in prompts:
        reason = rewards.objection(prompt)
        if reason is None:
            good.append(prompt)
        else:
            bad.add(prompt.origin, prompt.where, reason)
    bad.settle(origins(prompts) - origins(good))
    return good


def _held_out_prompts(args: Args, bad: BadRows) -> list[Prompt]:
    """[] without `--eval_data`."""
    if not args.evaluation.eval_data:
        return []
    prompts = load_prompts(args.evaluation.eval_data, args.evaluation.eval_split, args.data, bad=bad)
    return prompts[: args.evaluation.max_eval_samples]


def _encode(args: Args, prompts: list[Prompt], encoder: Encoder, bad: BadRows) -> list[Prompt]:
    """Texts; prompts with images are encoded when they are taken."""
    if encoder.vision is not None:
        bad.notices += remarks_on_media(prompts, args.data.images_key)
        bad.notices += encoder.vision.texts.told([prompt for prompt in prompts if prompt.has_media])
    return encode_prompts(
        prompts,
        encoder.tokenizer,
        apply_chat_template=args.data.apply_chat_template,
        prompt_max_len=args.model.prompt_max_len,
        bad=bad,
        ends=end_token_ids(args.model, encoder.tokenizer),
        placeholders=encoder.vision.placeholders if encoder.vision else (),
    )


def _from_a_readable_one(prompts: list[Prompt], encoder: Encoder, bad: BadRows) -> list[Prompt]:
    """The first prompt is shown, and the model tried on it: its images are read at the start. The others' are read when
    they are taken.
    """
    for index, prompt in enumerate(prompts):
        fault = encoder.reader.fault_of(prompt)
        if fault is None:
            return prompts[index:]
        bad.add(prompt.origin, prompt.where, fault.removeprefix(f"{prompt.where}: "))
        bad.settle(() if prompts[index + 1 :] else origins(prompts))
    return []


def _looked_at(args: Args, prompts: list[Prompt], encoder: Encoder, bad: BadRows) -> tuple[list[Prompt], list[str]]:
    if encoder.vision is None or not args.run.dry_run:
        return prompts, []
    return look_at_some(prompts, partial(encoder.request, seeds=()), bad)


def _of_pixels(args: Args, vision: Vision | None, prompts: list[Prompt]) -> list[str]:
    most = args.multimodal.max_pixels
    if vision is None or most is None or not args.typed("max_pixels") or not any(prompt.images for prompt in prompts):
        return []
    return told_of_pixels(vision, most)


def _check_strategy(args: Args) -> None:
    needless = args.distributed.fsdp or holds_all(args, processes_of(args), choose_precision(args)[0].compute)
    if not needless and find_spec("deepspeed") is None:
        raise Refused("DeepSpeed is not installed: `pip install deepspeed==0.19.8`, or train with --fsdp")


def _check_attention(args: Args) -> None:
    """With --assume_gpus, another machine is meant. transformers takes `kernels` where there is no flash-attn."""
    kernel = args.model.attn_implementation
    needed = kernel == "flash_attention_2" and args.run.assume_gpus is None
    if needed and find_spec("flash_attn") is None and find_spec("kernels") is None:
        remedy = "install flash-attn, or use --attn_implementation sdpa"
        raise Refused(f"--attn_implementation {kernel}: flash-attn is not installed; {remedy}")


def _check_adapters(args: Args) -> None:
    """With --assume_gpus, another machine is meant, whose 4 bits are not tried."""
    if has_adapters(args.model):
        adapter_files.check_library(args.model)
        adapter_files.given_config(args.model)
    if has_4_bits(args.model) and args.run.assume_gpus is None:
        quantised.check_library(args.model)


def _check_judged(args: Args, rewards: CombinedReward, held_out: list[Prompt]) -> None:
    """The rewards must be able to judge the held-out prompts too."""
    try:
        rewards.check(held_out)
    except Refused as refused:
        raise Refused(f"--eval_data {' '.join(args.evaluation.eval_data)}: {refused}") from refused
