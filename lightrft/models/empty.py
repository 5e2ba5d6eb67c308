"""A model whose parameters take no memory (`--meta_init`), and its weights, of which any range can be read alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.given import weight_files
from lightrft.models.source import code_options
from lightrft.models.suitable import read_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from lightrft.args.groups.model import ModelArgs


def empty_model(kind: Any, args: ModelArgs, dtype: torch.dtype, **options: Any) -> tuple[Any, dict[str, Any]]:
    """`kind.from_config`, with parameters on the meta device, and what `from_pretrained` says of the files.

    Buffers are made for real: no file holds those of the rotary positions. Raises `Refused` for weights that are not
    the model's own tensors, name by name.
    """
    from accelerate import init_empty_weights

    config = read_config(args)
    with init_empty_weights(include_buffers=False):
        code = {"trust_remote_code": code_options(args)["trust_remote_code"]}
        model = kind.from_config(config, dtype=dtype, **code, **options)
    model.tie_weights()  # each was given a meta tensor of its own
    converted = _converted(model)
    if converted is not None:
        raise Refused(
            f"--meta_init: --pretrain {args.pretrain} is or holds a {converted}, whose weights are converted when they "
            "are loaded, and can only be read as a whole; leave --meta_init out"
        )
    return model, _differences(args, model)


def _converted(model: Any) -> str | None:
    """A model type in it whose weights the library renames, merges or transposes."""
    from transformers import PreTrainedModel
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    for module in model.modules():
        if isinstance(module, PreTrainedModel):
            for name in (type(module).__name__, module.config.model_type):
                with suppress(KeyError):
                    if name and get_checkpoint_conversion_mapping(name):
                        return name
    return None


def _differences(args: ModelArgs, model: Any) -> dict[str, Any]:
    """Between the model and the files, as `from_pretrained` reports them."""
    weights, state = GivenWeights(args, model), model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    twice = sorted(name for name in tied if weights.has("weight", name))
    if twice:
        raise Refused(
            f"--meta_init: the files of --pretrain {args.pretrain} hold {twice[0]} beside the weight that its "
            "config.json ties it to; leave --meta_init out"
        )
    shapes = {
        name: (weights.shapes[name], list(value.shape)) for name, value in state.items() if name in weights.shapes
    }
    return {
        "missing_keys": [name for name in state if name not in weights.shapes and name not in tied],
        "unexpected_keys": weights.unused,
        "mismatched_keys": [(name, there, own) for name, (there, own) in shapes.items() if there != own],
    }


class GivenWeights:
    """The tensors of `model` in the safetensors of `--pretrain`, for `strategy.held.fill`: read in ranges, from one
    open file at a time.

    shapes: by the model's names. unused: names in the files that the model has no place for. read_bytes: so far.
    """

    steps: Mapping[str, int] = {}

    def __init__(self, args: ModelArgs, model: Any) -> None:
        self.shapes: dict[str, list[int]] = {}
        self.unused: list[str] = []
        self.read_bytes = 0
        self._places: dict[str, tuple[Path, str]] = {}
        self._open: tuple[Path, Any] | None = None
        own, prefix = set(model.state_dict()), model.base_model_prefix
        for path in weight_files(args):
            for name, shape in self._headers(path):
                others = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
                known = next((other for other in others if other in own), None)
                if known is None:
                    self.unused.append(name)
                else:
                    self.shapes[known], self._places[known] = shape, (path, name)

    def _headers(self, path: Path) -> Iterator[tuple[str, list[int]]]:
        file = self._file(path)
        yield from ((name, file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118

    def has(self, kind: str, name: str) -> bool:
        return name in self._places

    def read(self, kind: str, name: str, start: int, length: int) -> Tensor:
        """[length] of the flattened tensor, by way of the rows (of its first dimension) that hold them."""
        path, given = self._places[name]
        values, shape = self._file(path).get_slice(given), self.shapes[name]
        row = 1
        for size in shape[1:]:
            row *= size
        first, last = (start // row, -(-(start + length) // row)) if shape else (0, 1)
        rows = values[first:last] if shape else values[...]
        self.read_bytes += rows.numel() * rows.element_size()
        return rows.reshape(-1)[start - first * row :][:length]

    def _file(self, path: Path) -> Any:
        from safetensors import safe_open

        if self._open is None or self._open[0] != path:
            self._open = None
            self._open = (path, safe_open(path, "pt"))
        return self._open[1]
