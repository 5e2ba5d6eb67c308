"""The model of `--pretrain`, with one clear line when that cannot work."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from lightrft.args.conditions import has_4_bits, has_adapters
from lightrft.errors import Refused, warn
from lightrft.models import quantised
from lightrft.models.adapters import told_of_rank
from lightrft.models.empty import empty_model
from lightrft.models.freezing import choose_what_trains, is_asked_for
from lightrft.models.source import code_options, place, refusal
from lightrft.models.suitable import read_config
from lightrft.models.vision import model_kind, never_write_placeholders

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lightrft.args.groups.model import ModelArgs


LAYER = re.compile(r"\.\d+(?=\.|$)")  # its number in the name of a weight
NO_KERNEL = {"attn_implementation": "eager"}
TOGETHER = "give a config.json and weights of the same model"


def check_what_trains(args: ModelArgs) -> list[str]:
    """The notices. Raises `Refused` where flags freeze, adapt or quantise what the model has not."""
    told: list[str] = []
    if is_asked_for(args):
        choose_what_trains(model := described_model(args), args)
        told = told_of_rank(model, args) if has_adapters(args) else []
    if has_4_bits(args):
        quantised.layers_to_quantise(described_model(args), args)
    return told


def count_parameters(args: ModelArgs) -> int:
    """Of the model that `--pretrain`'s configuration describes, tied ones once; no weights are read."""
    return sum(parameter.numel() for parameter in described_model(args).parameters())


def count_frozen(args: ModelArgs) -> int:
    """Of the policy's parameters those that do not train."""
    if not is_asked_for(args):
        return 0
    model = described_model(args)
    choose_what_trains(model, args)
    return sum(parameter.numel() for parameter in model.parameters() if not parameter.requires_grad)


def count_adapters(args: ModelArgs) -> int:
    """Of the policy's parameters those that `--pretrain` has not."""
    if not has_adapters(args):
        return 0
    model = described_model(args)
    choose_what_trains(model, args)
    return sum(parameter.numel() for parameter in model.parameters()) - count_parameters(args)


def count_in_4_bits(args: ModelArgs) -> tuple[int, int]:
    """Of the policy's weights those in 4 bits, and the bytes that they take."""
    if not has_4_bits(args):
        return 0, 0
    sizes = [layer.weight.numel() for layer in quantised.layers_to_quantise(described_model(args), args)]
    return sum(sizes), sum(quantised.bytes_in_4_bits(size, args) for size in sizes)


def described_model(args: ModelArgs, kind: Any = None, *, with_attention: bool = False) -> PreTrainedModel:
    """The model that `--pretrain`'s configuration describes, without weights and without memory for them.

    kind: the class of transformers that makes it; None for the policy's. with_attention: by the kernel that the run
    has, which must be installed; else by torch's own operations, whatever the configuration names.
    """
    import torch

    config = read_config(args)
    options = {"trust_remote_code": args.trust_remote_code, **(_attention(args) if with_attention else NO_KERNEL)}
    try:
        with torch.device("meta"):
            return (kind or model_kind(config)).from_config(config, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        raise refusal(args, "configuration", error) from error


def attention_kernel(args: ModelArgs, describe: Callable[..., PreTrainedModel] = described_model) -> str:
    """Of the language model of `--pretrain`, by name; it need not be installed here. describe: with a head or without
    one, where nothing but the library's choice for such a model says it."""
    named = args.attn_implementation or read_config(args).get_text_config()._attn_implementation
    if named:
        return named
    config: Any = describe(args, with_attention=True).config.get_text_config()
    return config._attn_implementation


def load_model(
    args: ModelArgs,
    dtype: torch.dtype,
    device: torch.device,
    *,
    trains: bool,
    empty: bool = False,
    seed: int = 0,
) -> PreTrainedModel:
    """The language model of `--pretrain`, which may see too, in `dtype` on `device`, from safetensors, dropout off.

    trains: whether its parameters require gradients, but for those that flags freeze, or adapters in their place: a
    strategy trains those that do. seed: of new adapters' random numbers. empty: its weights are left in the files, and
    its parameters take no memory; `strategy.prepare` fills what a rank holds of them.
    Dropout stays off while training: the policy that is trained must be the policy that sampled.
    """
    model, left = _load(model_kind(read_config(args)), args, dtype, empty)
    if left:
        what = f"{len(left)} of its weights, such as {left[0]}, have no place in the model of its config.json"
        _warn_once(f"--pretrain {args.pretrain}: {what} and are left out")
    never_write_placeholders(model)
    model.requires_grad_(trains)
    if trains:
        choose_what_trains(model, args, seed)
        if has_4_bits(args):
            quantised.quantise(model, args, device)
    return (model if empty else model.to(device)).eval()


def described_backbone(args: ModelArgs, *, with_attention: bool = False) -> PreTrainedModel:
    """`described_model` without a head."""
    from transformers import AutoModel

    return described_model(args, AutoModel, with_attention=with_attention)


def load_backbone(args: ModelArgs, dtype: torch.dtype, *, empty: bool = False) -> PreTrainedModel:
    """The same without a head; what the folder has beside it is left there."""
    from transformers import AutoModel

    return _load(AutoModel, args, dtype, empty)[0]


def _load(kind: Any, args: ModelArgs, dtype: torch.dtype, empty: bool) -> tuple[Any, list[str]]:
    """The whole model, and the weights of the folder that it has no place for.

    The library is given the configuration: where it reads that itself, `_attn_implementation` in config.json is
    stronger than `--attn_implementation`."""
    from safetensors import SafetensorError

    attention = _attention(args)
    told = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # else it names neither tensor nor shape
    try:
        with _silent_library():
            if empty:
                model, loaded = empty_model(kind, args, dtype, **attention)
            else:
                options = {"use_safetensors": True, **told, **code_options(args), **attention}
                model, loaded = kind.from_pretrained(place(args), config=read_config(args), dtype=dtype, **options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise refusal(args, "model", error) from error
    left = sorted(loaded["unexpected_keys"])
    misfit = _other_shapes(loaded["mismatched_keys"]) or _missing(loaded["missing_keys"]) or _layers(model, left)
    if misfit is not None:
        raise Refused(f"--pretrain {args.pretrain}: {misfit}")
    return model, left


def _attention(args: ModelArgs) -> dict[str, str]:
    return {} if args.attn_implementation is None else {"attn_implementation": args.attn_implementation}


@contextmanager
def _silent_library() -> Iterator[None]:
    """It prints a table of all that does not fit; what of it matters is said here, in one line."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # of loading and saving weights: seconds, and the console has its own line
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _other_shapes(found: Collection[tuple[str, Iterable[int], Iterable[int]]]) -> str | None:
    """Of (name, shape in the file, shape in the model): the library would make up the whole tensor."""
    if not found:
        return None
    name, *shapes = min(found)
    there, wanted = (" x ".join(map(str, shape)) for shape in shapes)
    more = f" ({len(found) - 1} more differ)" if len(found) > 1 else ""
    return f"{name} is {there} in its weights and {wanted} by its config.json{more}; {TOGETHER}"


def _missing(names: Collection[str]) -> str | None:
    """The library would make them up at random."""
    if not names:
        return None
    return f"{len(names)} weights are missing, such as {min(names)}; give a whole causal language model"


def _layers(model: PreTrainedModel, left: Sequence[str]) -> str | None:
    """A configuration of fewer layers than there are would train, and save, the lower part of a model."""
    prefix = f"{model.base_model_prefix}."  # which a backbone's own names lack
    known = {LAYER.sub(".*", name.removeprefix(prefix)) for name in model.state_dict()}
    found = [name for name in left if LAYER.search(name) and LAYER.sub(".*", name.removeprefix(prefix)) in known]
    return f"its config.json has no layer for {found[0]} of its weights; {TOGETHER}" if found else None


@cache
def _warn_once(text: str) -> None:
    """By one process, however often the model is loaded."""
    warn(text)
