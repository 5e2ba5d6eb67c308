"""Weights laid out as a CPU's matrix products read them, once for a whole generation.

torch's own product of a few rows and a large weight lays the weight out anew at every call, which takes longer than the
product. oneDNN takes one that is laid out already; the results differ from torch's in the last bits. Layers that read
the same input are one product: for a few rows a wide one takes less time than several narrow ones. Adapters are merged
into the copy, in float32: in 16 bits what they add would be rounded away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lightrft.models.adapters import merged_weight
from lightrft.models.products import is_one_product
from lightrft.rollouts.engines.threads import all_threads, products_alone

LEAST = 1 << 15  # elements of the weights of one product; smaller ones gain nothing
ROWS = 32  # of the products that the layout is chosen for; others are right and hardly slower
NEARLY = 0.9
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))  # what most models call those of one input


@contextmanager
def packed(model: nn.Module) -> Iterator[Products]:
    """Lets the linear layers of `model` compute with laid out copies of their weights, where this machine can; where
    these are nearly all that it multiplies by, a step of one token shares them alone between threads."""
    products = Products()
    try:
        for layers in _groups(model):
            product = products.laid_out(layers)
            for place, layer in enumerate(layers):
                layer.forward = partial(product.output, place)
        with products_alone(products.elements >= NEARLY * _multiplied(model)):
            yield products
    finally:
        for layer in products.of_layer:
            vars(layer).pop("forward", None)  # the class's own is there again


class Products:
    """What was laid out. of_layer: the product that each layer is in."""

    def __init__(self) -> None:
        self.of_layer: dict[Any, _Product] = {}
        self.elements = 0

    def laid_out(self, layers: Sequence[Any]) -> _Product:
        product = _Product(layers, laid_out=True)
        self.of_layer |= dict.fromkeys(layers, product)
        self.elements += _elements(layers)
        return product

    def can(self, layers: Sequence[Any]) -> bool:
        """Whether `of` can be asked for: they are laid out together, or so small that a copy of them costs nothing."""
        product = self.of_layer.get(layers[0])
        if product is not None:
            return product.layers == tuple(layers)
        return all(map(multiplies, layers)) and read_one_input(layers) and _elements(layers) < LEAST

    def of(self, *layers: Any) -> Callable[[Tensor], Tensor]:
        """From the input of all of them to their outputs side by side."""
        product = self.of_layer.get(layers[0]) or _Product(layers, laid_out=False)
        return product.whole


def _elements(layers: Sequence[Any]) -> int:
    return sum(layer.weight.numel() for layer in layers)


def _multiplied(model: nn.Module) -> int:
    """Elements of the weights that a token is multiplied by: of an embedding it takes a row."""
    modules = [module for module in model.modules() if not isinstance(module, nn.Embedding)]
    return max(1, sum(weight.numel() for module in modules for weight in module.parameters(recurse=False)))


def _groups(model: nn.Module) -> Iterator[list[Any]]:
    """The layers that gain, those of one product in one list."""
    own = {name: layer for name, layer in model.named_children() if multiplies(layer)}
    others = [layer for name, layer in model.named_children() if name not in own]
    groups = []
    for names in TOGETHER:
        if own.keys() >= set(names) and read_one_input([own[name] for name in names]):
            groups.append([own.pop(name) for name in names])
    for group in groups + [[layer] for layer in own.values()]:
        if _elements(group) >= LEAST and _can(group[0].weight):
            yield group
    for other in others:
        yield from _groups(other)


def read_one_input(layers: Sequence[Any]) -> bool:
    """Whether their weights, and biases if any, can be one."""
    return len({(layer.in_features, layer.weight.dtype, layer.bias is None) for layer in layers}) == 1


def multiplies(layer: Any) -> bool:
    """Whether a copy of its weight, with what an adapter adds to it, is all that it computes with."""
    given = getattr(layer, "base_layer", layer)
    if not is_one_product(given) or "forward" in vars(layer) or "forward" in vars(given):
        return False
    return given is layer or given.weight.dtype.itemsize >= 4


def _can(weight: Tensor) -> bool:
    """oneDNN is there, and its products of this dtype need no detour on this processor."""
    ops, dtype = torch.ops.mkldnn, weight.dtype
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or not hasattr(ops, "_linear_pointwise"):
        return False
    if dtype == torch.bfloat16:
        return ops._is_mkldnn_bf16_supported()
    if dtype == torch.float16:
        return ops._is_mkldnn_fp16_supported()
    return dtype == torch.float32


class _Product:
    """As `nn.Linear.forward` of each of `layers`, of their weights as they are now and without a graph.

    The one that is asked first computes the outputs of all; the others take theirs if they are given that very input,
    and what nobody has taken is let go with the next. A model that changed the input in between could not be trained:
    for its gradient a linear layer needs the input as it was.
    """

    def __init__(self, layers: Sequence[Any], *, laid_out: bool) -> None:
        self.layers, self.laid_out = tuple(layers), laid_out
        self.widths = [layer.out_features for layer in layers]
        weights, biases = [merged_weight(layer) for layer in layers], [layer.bias for layer in layers]
        self.weight, self.bias = _joined(weights), None if biases[0] is None else _joined(biases)
        if laid_out:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight, ROWS)
        self.inputs: Tensor | None = None
        self.outputs: dict[int, Tensor] = {}

    def whole(self, inputs: Tensor) -> Tensor:
        """Of all layers side by side."""
        if not self.laid_out:
            return linear(inputs, self.weight, self.bias)
        with all_threads():
            return torch.ops.mkldnn._linear_pointwise(inputs, self.weight, self.bias, "none", [], "")

    def output(self, place: int, inputs: Tensor) -> Tensor:
        """Of the layer at `place`."""
        if inputs is not self.inputs or place not in self.outputs:
            self.inputs, self.outputs = inputs, dict(enumerate(self.whole(inputs).split(self.widths, -1)))
        found = self.outputs.pop(place)
        if not self.outputs:
            self.inputs = None
        return found


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([each.detach() for each in tensors]) if len(tensors) > 1 else tensors[0].detach()
