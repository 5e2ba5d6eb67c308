"""A trained model as a Hugging Face folder: the folder of `--pretrain`, with new weights."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.models.given import CONFIGURATION, INDEX, TOKENIZER, Given

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", INDEX, "adapter_model.safetensors")
MARKS = ("config.json", "adapter_config.json")  # a folder with one has its weights


def save_hf(model: Any, params: Iterable[tuple[str, Tensor]], given: Given, path: Path) -> None:
    """Writes the folder of `--pretrain` with new weights to `path`, where it replaces an older model; other files stay.

    Names and dtypes of the weights and the bytes of all other files are those that were given.
    """
    with replacing(path) as folder:
        _write(model, params, given, folder)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Another folder, of which all is moved to `path` when it is whole. config.json is removed first and moved last: a
    folder with a config has its weights."""
    beside = path / ".export.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        with _disk_errors():
            yield beside
        _follow_umask(beside)
        _move(beside, path)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(model: Any, params: Iterable[tuple[str, Tensor]], given: Given, folder: Path) -> None:
    _write_weights(model, params, given, folder)
    _name_as_given(folder, given, getattr(model, "all_tied_weights_keys", None) or {}, model.base_model_prefix)
    for file in [*folder.glob("*.py"), *folder.glob("generation_config.json")]:  # the library's own
        file.unlink()
    write_files(given.files, folder)


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """files: contents by path in the folder."""
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)


def _write_weights(model: Any, params: Iterable[tuple[str, Tensor]], given: Given, folder: Path) -> None:
    """Host memory holds all weights once, in the dtypes that were given, for as long as this takes."""
    state = {name: _as_given(value.detach(), name, given) for name, value in params}
    with _no_generation_config(model):
        model.save_pretrained(folder, state_dict=state)


def _follow_umask(folder: Path) -> None:
    """Some writers make files that only their owner can read."""
    umask = os.umask(0o022)
    os.umask(umask)
    for entry in folder.rglob("*"):
        entry.chmod((0o777 if entry.is_dir() else 0o666) & ~umask)


@contextmanager
def _no_generation_config(model: Any) -> Iterator[None]:
    """Up to 5.17 transformers refuses to save some that it has loaded: the end of a run would fail."""
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _as_given(value: Tensor, name: str, given: Given) -> Tensor:
    return value.to("cpu", given.dtype(name) if value.is_floating_point() else None)


def _name_as_given(folder: Path, given: Given, tied: Mapping[str, str], prefix: str) -> None:
    """Where the library writes other names than were given: without the model's prefix, or tied weights once more.

    tied: the name of a weight that is another's copy, and the other's.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    places: dict[str, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as weights:
            names = {name: _given_name(name, given, prefix) for name in weights.keys()}  # noqa: SIM118
            dtypes = {name: weights.get_slice(name).get_dtype() for name in names}
        copies = {copy: name for copy, name in tied.items() if copy in given.dtypes and name in names}
        changed = (name != new or given.dtypes.get(new, dtypes[name]) != dtypes[name] for name, new in names.items())
        if copies or any(changed):
            tensors = load_file(file)
            renamed = {new: _as_given(tensors[name], new, given) for name, new in names.items()}
            renamed |= {copy: _as_given(tensors[name].clone(), copy, given) for copy, name in copies.items()}
            save_file(renamed, file, metadata={"format": "pt"})
        places |= dict.fromkeys([*names.values(), *copies], file.name)
    if (folder / INDEX).is_file():
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"] = places
        (folder / INDEX).write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")


def _given_name(name: str, given: Given, prefix: str) -> str:
    others = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    return next((other for other in others if other in given.dtypes), name)


def _move(beside: Path, path: Path) -> None:
    """All of `beside` to `path`. Of the model there nothing stays."""
    marks = [path / name for name in MARKS if (path / name).exists()]
    if marks:
        for mark in marks:
            mark.unlink()
        for pattern in (*WEIGHTS, *TOKENIZER, *CONFIGURATION):
            for entry in path.glob(pattern):
                _remove(entry)
    for entry in sorted(beside.iterdir(), key=lambda e: (e.name in MARKS, e.name)):
        _remove(path / entry.name)
        os.replace(entry, path / entry.name)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


@contextmanager
def _disk_errors() -> Iterator[None]:
    """The writer of safetensors hides the disk's errors in its own: they are raised as `OSError`."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
