"""LoRA (arXiv:2106.09685): low-rank adapters train in a model whose own weights stay as they are.

A layer of weight W computes with W + (alpha / rank) B A. A starts at random, the same on all ranks, and B at 0, so that
a run starts from the model as it is. Where a run starts from an adapter (`--lora_path`), a second copy of that, which
does not train, is the reference.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightrft.errors import Refused
from lightrft.models.adapter_files import base_of, begin_from, given_config, library, refusal, save_adapter
from lightrft.models.adapter_targets import TIED, adaptable, layers_to_adapt, shortened
from lightrft.models.quantised import layers_in_4_bits

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

    from lightrft.args.groups.model import ModelArgs
    from lightrft.models.given import Given

GAINS_NOTHING = "beyond which a rank gains nothing"
OWN, BEGUN = "default", "begun"  # the adapters' names: of the one that trains, and of what it was at the start


def adapt(model: Any, args: ModelArgs, seed: int | None) -> None:
    """Adds adapters to the layers of `model` that `--target_modules` names and whose weights no flag freezes; nothing
    else of it trains then, but for the biases of `--lora_bias`. They are held in float32.

    model: its parameters require gradients, but for those that are frozen. seed: of new adapters' random numbers; None
    for a model that is only described, whose adapters take no memory either. Raises `Refused` where no layer is left.
    """
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    can = set(adaptable(model))
    config = given_config(args) or _new_config(model, args, trained)
    config.base_model_name_or_path = base_of(args)
    for adapter in (BEGUN, OWN) if args.lora_path else (OWN,):
        _inject(config, model, adapter, args)
    layers = adapted_layers(model)
    _check_layers(layers, can, model, args)
    _begin(model, layers, args, seed)
    _choose(model, layers, trained, config.bias, args)


def told(model: Any) -> str:
    """Of a model with adapters: their rank, and how many layers have one."""
    layers = adapted_layers(model)
    ranks = sorted({layer.r[OWN] for layer in layers.values()})
    return f"LoRA of rank {' to '.join(map(str, ranks[:1] + ranks[1:][-1:]))} in {len(layers)} layers"


def _in_float32(layer: Any, *, held: bool) -> None:
    """held: they take memory, also where the weights beside them are still in files."""
    for matrices in (layer.lora_A, layer.lora_B):
        matrices.float()
        if held and next(matrices.parameters()).is_meta:
            matrices.to_empty(device="cpu")


def _inject(config: Any, model: Any, adapter: str, args: ModelArgs) -> None:
    empty = next(model.parameters()).is_meta
    with warnings.catch_warnings():  # of layers that keep their transpose, and of a second adapter
        warnings.simplefilter("ignore", UserWarning)
        try:
            library().inject_adapter_in_model(config, model, adapter, low_cpu_mem_usage=empty)
        except Exception as error:  # whatever it raises: the configuration of `--lora_path` may hold anything
            if args.lora_path is None:
                raise
            why = str(error).partition("\n")[0]
            raise refusal(args, f"PEFT cannot add it to --pretrain {args.pretrain} ({why})") from error


def _check_layers(layers: Mapping[str, Any], can: set[str], model: Any, args: ModelArgs) -> None:
    """layers: those that have adapters; can: those that may."""
    odd = sorted(layers.keys() - can)
    if odd:
        assert args.lora_path is not None, f"adapters in {odd[0]}, which nobody has named"
        kind = type(layers[odd[0]].get_base_layer()).__name__
        raise refusal(args, f"it adapts {odd[0]} ({kind}); only adapters of linear layers are taken, give another")
    head = model.get_output_embeddings()
    if head in layers.values() and head.base_layer.weight is model.get_input_embeddings().weight:
        raise refusal(args, f"it adapts the output head, {TIED}; give another")


def _begin(model: Any, layers: Mapping[str, Any], args: ModelArgs, seed: int | None) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed or 0)
        for layer in layers.values():
            layer.set_adapter(OWN)
            _in_float32(layer, held=seed is not None)
            layer.reset_lora_parameters(OWN, True)
    if args.lora_path:
        for adapter in (OWN, BEGUN):
            begin_from(model, args, adapter)


def _choose(model: Any, layers: Mapping[str, Any], trained: set[str], bias: str, args: ModelArgs) -> None:
    """What trains, of that which no flag freezes. trained: names of before there were adapters."""
    chosen = {id(p) for name, layer in layers.items() if f"{name}.weight" in trained for p in _matrices(layer, OWN)}
    if not chosen:
        raise refusal(args, "flags freeze all layers that it adapts; freeze less")
    if bias != "none":
        chosen |= {id(p) for name, p in model.named_parameters() if _is_bias(name, layers, trained, bias)}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in chosen)


def _matrices(layer: Any, adapter: str) -> list[Tensor]:
    return [layer.lora_A[adapter].weight, layer.lora_B[adapter].weight]


def _is_bias(name: str, layers: Mapping[str, Any], trained: set[str], bias: str) -> bool:
    """Of a layer with an adapter, or with "all" of any."""
    own = of_the_model(name)
    layer, _, kind = own.rpartition(".")
    return kind == "bias" and own in trained and (bias == "all" or layer in layers)


def adapted_layers(model: Any) -> dict[str, Any]:
    """Those with adapters, by the names that they have in the model without."""
    kind = library().tuners.lora.LoraLayer
    return {name: module for name, module in model.named_modules() if isinstance(module, kind)}


def computed_with(model: Any) -> dict[str, Tensor]:
    """The parameters that the model learns and samples with: all but the adapters that it began with, which are beside
    those that it has."""
    return {name: parameter for name, parameter in model.named_parameters() if f".{BEGUN}." not in name}


def of_the_model(name: str) -> str:
    """The name that a tensor has in the model without adapters."""
    return name.replace(".base_layer.", ".")


def _new_config(model: Any, args: ModelArgs, trained: set[str]) -> Any:
    names = layers_to_adapt(model, args, trained)
    _check_rank(model, names, args)
    return library().LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,  # pyright: ignore[reportArgumentType]  (a fraction is fine)
        target_modules=shortened(names, model),
        bias=args.lora_bias,  # pyright: ignore[reportArgumentType]  (one of its choices)
        task_type="CAUSAL_LM",
    )


def _check_rank(model: Any, names: Iterable[str], args: ModelArgs) -> None:
    """B A has at most the rank of the weight that it is added to: where no layer can use all of it, it is a slip."""
    most = max(min(model.get_submodule(name).weight.shape) for name in names)
    if args.lora_rank > most:
        what = f"is above the smaller side of every layer that it adapts, {GAINS_NOTHING}"
        raise Refused(f"--lora_rank {args.lora_rank} {what}; use at most {most}")


def told_of_rank(model: Any, args: ModelArgs) -> list[str]:
    """A notice where some of the layers that have adapters cannot use all of `--lora_rank`, and others can: as where
    heads of keys are fewer than those of queries, which the user may well want."""
    if args.lora_path is not None:
        return []
    sides = [min(layer.get_base_layer().weight.shape) for layer in adapted_layers(model).values()]
    smaller = sum(side < args.lora_rank for side in sides)
    if not smaller:
        return []
    what = f"is above the smaller side of {smaller} of the {len(sides)} layers that it adapts, {GAINS_NOTHING}"
    return [f"--lora_rank {args.lora_rank} {what}; all can use up to {min(sides)}"]


@dataclass(frozen=True)
class Adapters:
    """Those of a model. names: of the tensors that are not `--pretrain`'s, and that a checkpoint holds."""

    model: Any
    config: Any
    names: frozenset[str]

    @contextmanager
    def at_the_start(self) -> Iterator[None]:
        """The model as the run began: without adapters, or with those of `--lora_path`."""
        layers = adapted_layers(self.model).values()
        for layer in layers:  # not peft's own switch, which changes what requires a gradient
            layer._active_adapter = [BEGUN] if BEGUN in layer.lora_A else []
        try:
            yield
        finally:
            for layer in layers:
                layer._active_adapter = [OWN]

    def save(self, tensors: Iterable[tuple[str, Tensor]], given: Given, path: Path) -> None:
        """As a PEFT adapter. tensors: those of `names`."""
        save_adapter(self.config, tensors, OWN, given, path)

    def merged(self, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        """`tensors`, in the model's order, as those of the model without adapters: W + scale B A, one at a time.

        Weights in 4 bits are not among `tensors`, and are made of what they hold."""
        layers, weight, down = adapted_layers(self.model), None, torch.empty(0)
        in_4_bits = {of_the_model(f"{name}.weight"): layer for name, layer in layers_in_4_bits(self.model).items()}
        for name, value in tensors:
            layer, _, kind = name.rpartition(".lora_")
            if not layer and not name.endswith(".base_layer.weight"):
                yield of_the_model(name), value
            elif not layer:
                weight = value
            elif kind == f"A.{OWN}.weight":
                down = value
            elif kind == f"B.{OWN}.weight":
                base = in_4_bits.pop(f"{layer}.weight").weight if weight is None else weight
                yield f"{layer}.weight", with_adapter(layers[layer], base, down, value)
                weight = None
        yield from ((name, layer.weight) for name, layer in in_4_bits.items())


def with_adapter(layer: Any, weight: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """W + scale B A in float32 or better: weight [out, in], or its transpose in layers that have it so, down = A
    [rank, in], up = B [out, rank]."""
    dtype = torch.promote_types(weight.dtype, torch.float32)
    change = up.to(dtype) @ down.to(dtype)
    return weight.to(dtype) + layer.scaling[OWN] * (change.T if layer.fan_in_fan_out else change)


def merged_weight(layer: Any) -> Tensor:
    """What a layer multiplies by: its weight, and what adapters that are on add to it."""
    if not hasattr(layer, "lora_A"):
        return layer.weight
    weight, on = layer.base_layer.weight, OWN in layer.active_adapters
    return with_adapter(layer, weight, *_matrices(layer, OWN)) if on else weight


def adapters_of(model: PreTrainedModel) -> Adapters | None:
    """None of a model without."""
    configs = getattr(model, "peft_config", None)
    if configs is None:
        return None
    biases = {name for name, p in model.named_parameters() if p.requires_grad}
    own = {name for name, _ in model.named_parameters() if f".{OWN}." in name}
    return Adapters(model, configs[OWN], frozenset(own | biases))
