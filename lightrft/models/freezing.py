"""Which parameters of a model train: all, less what flags freeze, or adapters in the layers that they do not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lightrft.args.conditions import has_adapters
from lightrft.errors import Refused
from lightrft.models import adapters
from lightrft.models.vision import sees

if TYPE_CHECKING:
    from lightrft.args.groups.model import ModelArgs

TOWERS = ("visual", "vision_tower", "vision_model", "vision_encoder", "image_tower")  # one part, by many names
PROJECTOR = re.compile(r"(^|[._])(\w*projector|connector|merger|deepstack_merger_list|aligner)(\.|$)")
WRAPPER = "model."


def is_asked_for(args: ModelArgs) -> bool:
    """Whether a part of the policy is frozen."""
    return bool(args.freeze_prefix) or args.freeze_backbone or not args.tune_projector or has_adapters(args)


def choose_what_trains(model: Any, args: ModelArgs, seed: int | None = None) -> None:
    """Of a model whose parameters all require gradients. seed: of new adapters' random numbers; None for a model that
    is only described."""
    freeze(model, args)
    if has_adapters(args):
        adapters.adapt(model, args, seed)


def freeze(model: Any, args: ModelArgs) -> None:
    """Takes from `--freeze_prefix`, `--freeze_backbone` and `--no-tune_projector` what does not train.

    A prefix that any model calls its vision tower by means that of this one. The projector, which turns its features
    into the language model's, is a part of its own, also where the tower holds it. Raises `Refused` for a prefix of no
    parameter, and where nothing is left.
    """
    chosen = {name for prefix in args.freeze_prefix for name in _named(model, prefix)}
    parts = parts_of(model)
    chosen |= parts["language model"] if args.freeze_backbone else set()
    chosen |= parts["projector"] if not args.tune_projector else set()
    _check(model, args, parts, chosen)
    for name, parameter in model.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)


def parts_of(model: Any) -> dict[str, set[str]]:
    """Names of parameters: vision tower, projector, language model with its head. A text model is all language."""
    names = [name for name, _ in model.named_parameters()]
    if not sees(model.config):
        return {"vision tower": set(), "projector": set(), "language model": set(names)}
    tower, decoder = (_within(model, part) for part in (model.get_encoder(modality="image"), model.get_decoder()))
    head = _within(model, model.get_output_embeddings())
    language = {name for name in names if name.startswith((*decoder, *head))}
    sight = [name for name in names if name not in language]
    seen = {name for name in sight if name.startswith(tuple(tower)) and not PROJECTOR.search(name)}
    return {"vision tower": seen, "projector": set(sight) - seen, "language model": language}


def trains_language(model: Any) -> bool:
    """Whether anything of the language model does."""
    names = parts_of(model)["language model"]
    return any(parameter.requires_grad for name, parameter in model.named_parameters() if name in names)


def _within(model: Any, part: Any) -> tuple[str, ...]:
    return tuple(f"{name}." for name, module in model.named_modules() if module is part and name)


def _named(model: Any, prefix: str) -> Iterator[str]:
    if prefix.rstrip(".") in TOWERS:
        yield from parts_of(model)["vision tower"]
    for name, _ in model.named_parameters():
        if name.startswith((prefix, f"{WRAPPER}{prefix}")) and prefix.rstrip(".") not in TOWERS:
            yield name


def _check(model: Any, args: ModelArgs, parts: dict[str, set[str]], chosen: set[str]) -> None:
    there = sorted({".".join(name.removeprefix(WRAPPER).split(".")[:1]) for name, _ in model.named_parameters()})
    for prefix in args.freeze_prefix:
        if not any(_named(model, prefix)):
            raise Refused(f"--freeze_prefix {prefix}: no parameter's name begins so; those there: {', '.join(there)}")
    if not args.tune_projector and not parts["projector"]:
        raise Refused(f"--no-tune_projector: --pretrain {args.pretrain} has no projector of images; leave it out")
    if len(chosen) == sum(1 for _ in model.named_parameters()):
        flags = "--freeze_prefix, --freeze_backbone and --no-tune_projector"
        raise Refused(f"{flags} leave no parameter of --pretrain {args.pretrain} to train; freeze less")


def told(model: Any, args: ModelArgs) -> str:
    """How many parameters of each part train."""
    choose_what_trains(model, args)
    own = adapters.computed_with(model)
    numbers = {name: (parameter.numel(), parameter.requires_grad) for name, parameter in own.items()}
    counts = []
    for part, names in parts_of(model).items():
        sizes = [numbers[name] for name in names if name in numbers]
        if sizes:
            counts.append(f"{sum(size for size, trains in sizes if trains):,} of {sum(s for s, _ in sizes):,} ({part})")
    of_adapters = f"; {adapters.told(model)}" if has_adapters(args) else ""
    return f"parameters that train: {', '.join(counts)}{of_adapters}"
