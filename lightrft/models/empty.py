"""A model whose parameters take no memory (`--meta_init`), and its weights, of which any range can be read alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.errors import Refused
from lightrft.models.adapters import of_the_model
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
    weights = GivenWeights(args, model)
    model._weight_conversions = weights.names.used()  # `save_pretrained` gives the files' own names back by these
    return model, _differences(args, model, weights)


class Names:
    """What a model calls the tensors of its files, whose names may be of an older release, or of its base model."""

    def __init__(self, args: ModelArgs, model: Any) -> None:
        from transformers import PreTrainedModel
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming

        changes = get_model_conversion_mapping(model if isinstance(model, PreTrainedModel) else model.backbone)
        self._renamings: list[Any] = [change for change in changes if isinstance(change, WeightRenaming)]
        self._conversions = [change for change in changes if not isinstance(change, WeightRenaming)]
        self._pretrain, self._prefix = args.pretrain, model.base_model_prefix
        self._own = {of_the_model(name): name for name in model.state_dict()}

    def of(self, given: str) -> str | None:
        """None where the model has no place for it. Raises `Refused` for one that is no tensor of the model's."""
        renamed = given
        for change in self._renamings:
            renamed, _ = change.rename_source_key(renamed)
        if any(change.rename_source_key(renamed)[1] is not None for change in self._conversions):
            raise Refused(
                f"--meta_init: --pretrain {self._pretrain} holds {given}, which is merged, split or turned when it is "
                "loaded, and such weights can only be read as a whole; leave --meta_init out"
            )
        names = [other for name in (renamed, given) for other in self._with_or_without(name)]
        return next((self._own[name] for name in names if name in self._own), None)

    def used(self) -> list[Any]:
        """The library's renamings that names asked for needed; all of them where it does not tell (5.5)."""
        return [change for change in self._renamings if getattr(change, "_was_used", True)]

    def _with_or_without(self, name: str) -> tuple[str, ...]:
        return name, name.removeprefix(f"{self._prefix}."), f"{self._prefix}.{name}"


def _differences(args: ModelArgs, model: Any, weights: GivenWeights) -> dict[str, Any]:
    """Between the model and the files, as `from_pretrained` reports them."""
    state = model.state_dict()
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
        self.names = Names(args, model)
        given = {name: (path, shape) for path in weight_files(args) for name, shape in self._headers(path)}
        for name, (path, shape) in sorted(given.items()):  # some renamings ask for this order
            known = self.names.of(name)
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
