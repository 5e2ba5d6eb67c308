"""Which layers of a model can have adapters, and which of these `--target_modules` names."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightrft.errors import Refused
from lightrft.models.adapter_files import library

if TYPE_CHECKING:
    from lightrft.args.groups.model import ModelArgs

ALL_LINEAR = "all-linear"
TIED = "tied to the embeddings, which adapters would part"
READ = re.compile(r"\bself\.(\w+)\.weight\b(?!\s*(?:\[|=|\.(?:dtype|device|shape|size|split|data|_)))")
ELSEWHERE = re.compile(r"\b(?:init\.|isinstance\(|getattr\()")  # lines that read a weight, but not to multiply by it


def layers_to_adapt(model: Any, args: ModelArgs, trained: set[str]) -> list[str]:
    """Those that `--target_modules` names by the ends of their names and whose weights are in `trained`; `all-linear`
    is all but the output head. Raises `Refused` where a name fits none, or none is left."""
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    is_tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    can = [name for name in adaptable(model) if name != head or not is_tied]
    free = [name for name in can if f"{name}.weight" in trained]
    named: set[str] = set()
    for target in args.target_modules:
        ends = [name for name in can if _ends_so(name, target) or (target == ALL_LINEAR and name != head)]
        if is_tied and _ends_so(head, target):
            raise _not_that(target, f"{head} is {TIED}", free)
        if not ends:
            raise _not_that(target, _why_none(model, target), free)
        named.update(ends)
    names = sorted(named.intersection(free))
    if not names:
        asked = " ".join(args.target_modules)
        raise Refused(f"--target_modules {asked}: flags freeze all layers that it names; freeze less, or name others")
    return names


def adaptable(model: Any) -> list[str]:
    """The linear layers with which W + scale B A is what the model computes, and which PEFT adapts by their names."""
    from transformers.pytorch_utils import Conv1D

    found = {name: type(module) for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    linear = {name for name, kind in found.items() if _multiplies(kind)}
    for parent, module in model.named_modules():
        linear -= {f"{parent}.{name}".lstrip(".") for name in _read_by_itself(type(module))}
    taken = {end for end in map(_end, linear) if _peft_adapts(end, model)}
    return [name for name in found if name in linear and _end(name) in taken]


def shortened(names: list[str], model: Any) -> list[str]:
    """The ends of the names, where nothing else's name ends so: adapter_config.json is read by people and engines."""
    ends = sorted(set(map(_end, names)))
    ending = sorted(name for name, _ in model.named_modules() if any(_ends_so(name, end) for end in ends))
    return ends if ending == names else names


@cache
def _multiplies(kind: type[nn.Module]) -> bool:
    """Whether a layer of that class answers input x weight + bias and nothing else, as a router may not."""
    from transformers.pytorch_utils import Conv1D

    with torch.device("cpu"):  # where a model without memory is made, too
        inputs, weight, bias = (torch.tensor(v) for v in ([[1.0, 2.0]], [[3.0, 5.0], [7.0, 11.0]], [1.0, 2.0]))
    with torch.device("meta"):  # which draws no random numbers
        layer: Any = Conv1D(2, 2) if issubclass(kind, Conv1D) else nn.Linear(2, 2)
    layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
    layer.__class__ = kind
    try:
        found = layer(inputs)
    except Exception:  # it has more than a weight and a bias
        return False
    wanted = inputs @ (weight if issubclass(kind, Conv1D) else weight.T) + bias
    return isinstance(found, torch.Tensor) and torch.equal(found, wanted)


@cache
def _read_by_itself(kind: type[nn.Module]) -> frozenset[str]:
    """Of a module of that class, the layers whose weights its code multiplies by without calling them (Mamba does),
    so that an adapter would change nothing. All paths of the code count, so all machines have the same adapters."""
    found: set[str] = set()
    for each in kind.__mro__[: kind.__mro__.index(nn.Module)]:
        try:
            lines = inspect.getsource(each).splitlines()
        except (OSError, TypeError):  # made without a file
            continue
        found.update(name for line in lines if not ELSEWHERE.search(line) for name in READ.findall(line))
    return frozenset(found)


def _peft_adapts(end: str, model: Any) -> bool:
    """Whether PEFT gives a layer of that name an adapter, which it is asked with a layer alone: in models with experts
    it takes some names for theirs, also where they are a dense layer's, and in Mamba's it refuses others."""
    alone, layer = nn.Module(), nn.Linear(1, 1, device="meta")
    alone.config = model.config
    alone.add_module(end, layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            config = library().LoraConfig(r=1, target_modules=[end])
            library().inject_adapter_in_model(config, alone, low_cpu_mem_usage=True)
        except ValueError:
            return False
    return alone.get_submodule(end) is not layer


def _not_that(target: str, why: str, free: Sequence[str]) -> Refused:
    """free: the layers that would be taken."""
    others = ", ".join([*sorted(set(map(_end, free))), ALL_LINEAR])
    remedy = f"those that can have one: {others}" if free else "flags freeze all that can have one; freeze less"
    return Refused(f"--target_modules {target}: {why}; {remedy}")


def _why_none(model: Any, target: str) -> str:
    linear = (name for name, module in model.named_modules() if isinstance(module, nn.Linear))
    name = next((name for name in linear if _ends_so(name, target)), None)
    return "no linear layer's name ends so" if name is None else f"{name} cannot have an adapter"


def _ends_so(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _end(name: str) -> str:
    return name.rpartition(".")[2]
