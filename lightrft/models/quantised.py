"""QLoRA (arXiv:2305.14314): the linear layers of a model with adapters keep their own weights in 4 bits.

Each 64 numbers of a weight have a scale, the largest of them; a number is one of 16 values times its scale. With
`--double_quant` the scales are kept in 8 bits in the same way, 256 of them together. bitsandbytes makes such weights
and multiplies by them.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightrft.args.conditions import four_bits_flag
from lightrft.errors import Refused, error_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightrft.args.groups.model import ModelArgs

WITHOUT_KERNELS = {  # a device on which bitsandbytes cannot multiply, and what would work
    "cuda": "the GPU here ({}); install a bitsandbytes that is built for it, or train without",
    "cpu": "cpu here ({}); train without, or on a GPU",
}
BLOCK, SCALES = 64, 256  # numbers that share a scale, and scales that share one: as bitsandbytes' own layers have it


class FourBitLinear(nn.Linear):
    """inputs [..., I] x weight [O, I] + bias [O]. The weight is in 4 bits: `packed`, uint8 [O * I / 2, 1], and `state`.

    They are no parameter: no strategy shards, casts or trains them, and every process has them whole. Not the layer of
    bitsandbytes, which on some processors lays its weights out anew, for inference alone, once it is in eval mode; our
    models always are.
    """

    packed: Tensor
    state: Any

    @property
    def weight(self) -> Tensor:  # pyright: ignore[reportIncompatibleVariableOverride]
        """[O, I] as it is multiplied by, made anew at every look, in the dtype that it came in."""
        return library().functional.dequantize_4bit(self.packed, self.state)

    def forward(self, input: Tensor) -> Tensor:
        return library().matmul_4bit(input, self.packed, self.state, bias=self.bias)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FourBitLinear:
        """Scales go where the weight goes, and stay in their dtype."""
        super()._apply(fn, recurse)
        self.state.to(self.packed.device)
        return self


@cache
def library() -> Any:
    import bitsandbytes  # pyright: ignore[reportMissingImports]  (not everyone installs it)

    return bitsandbytes


def check_library(args: ModelArgs) -> None:
    """Raises `Refused` where bitsandbytes is not there, or cannot multiply on the device that a run has here.

    A GPU whose memory others hold says nothing of bitsandbytes: its `torch.OutOfMemoryError` passes.
    """
    flag, device = four_bits_flag(args), "cuda" if torch.cuda.is_available() else "cpu"
    try:
        library()
    except Exception as error:  # it loads a library of its own, which may fail in any way
        remedy = "`pip install 'bitsandbytes>=0.50'`"
        raise Refused(f"{flag}: bitsandbytes cannot be imported ({error_text(error)}): {remedy}") from error
    try:
        packed, state = _quantised(torch.ones(BLOCK, BLOCK, device=device), args)
        library().matmul_4bit(torch.ones(1, BLOCK, device=device, requires_grad=True), packed, state).sum().backward()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # it has many backends, and each says in its own way what it has not
        where = WITHOUT_KERNELS[device].format(error_text(error))
        raise Refused(f"{flag}: bitsandbytes has no kernels for {where}") from error


def quantise(model: Any, args: ModelArgs, device: torch.device) -> None:
    """In place, with the 4-bit weights on `device`. model: its adapters are there, and nothing of what is quantised
    trains."""
    for layer in layers_to_quantise(model, args):
        assert not layer.weight.requires_grad, "adapters train in its place"
        packed, state = _quantised(layer.weight.detach().to(device), args)
        del layer.weight
        layer.__class__ = FourBitLinear
        layer.register_buffer("packed", packed, persistent=False)
        layer.state = state


def layers_to_quantise(model: Any, args: ModelArgs) -> list[nn.Linear]:
    """All that are linear but the output head, as `transformers` chooses them, and adapters. Raises `Refused` where
    there is none."""
    head = model.get_output_embeddings()
    ends = (head, getattr(head, "base_layer", head))
    named = ((name, layer) for name, layer in model.named_modules() if type(layer) is nn.Linear)
    found = [layer for name, layer in named if ".lora_" not in name and all(layer is not end for end in ends)]
    if not found:
        raise Refused(f"{four_bits_flag(args)}: {type(model).__name__} keeps no weights in linear layers; remove it")
    return found


def layers_in_4_bits(model: nn.Module) -> dict[str, FourBitLinear]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, FourBitLinear)}


def numbers_in_4_bits(model: nn.Module) -> int:
    """Which are in no parameter of the model."""
    return sum(layer.in_features * layer.out_features for layer in layers_in_4_bits(model).values())


def bytes_in_4_bits(numbers: int, args: ModelArgs) -> int:
    """Of a weight of so many numbers, less the tables of values, a kilobyte a layer."""
    scales = -(-numbers // BLOCK)
    return -(-numbers // 2) + (scales + 4 * -(-scales // SCALES) if args.double_quant else 4 * scales)


def _quantised(weight: Tensor, args: ModelArgs) -> tuple[Tensor, Any]:
    """By one thread on a CPU: the mean of the scales, which is taken off them, rounds otherwise by several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return library().functional.quantize_4bit(
            weight, blocksize=BLOCK, compress_statistics=args.double_quant, quant_type=args.quant_type
        )
    finally:
        torch.set_num_threads(threads)
