"""Datasets of the `datasets` library: saved folders, folders of data files, and names of the hub."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightrft import hub
from lightrft.errors import Refused, error_text
from lightrft.prompts.media.stored import plain_rows
from lightrft.prompts.readers import Rows

NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?")  # org/name or org/name:config
SAVED = ("dataset_info.json", "dataset_dict.json")  # files of save_to_disk, of a Dataset and of a DatasetDict


def dataset_rows(spec: str, split: str, label: str) -> Rows:
    """The rows of one split, read from a memory-mapped file. Raises `Refused`, also for a split that does not exist."""
    dataset = _loaded(spec, label)
    place = spec
    if isinstance(dataset, Mapping):  # of splits; a folder of `Dataset.save_to_disk` has none and is used whole
        if split not in dataset:
            flag = "--eval_split" if label.startswith("--eval") else "--prompt_split"
            raise Refused(f"{label}: no split '{split}'; there is {', '.join(dataset)}, chosen by {flag}")
        dataset, place = dataset[split], f"{spec}[{split}]"
    for number, row in enumerate(plain_rows(dataset), 1):
        yield f"{place} row {number}", row


def source_name(spec: str) -> str:
    """A folder's name, or the hub's without the configuration."""
    return Path(spec).resolve().name if Path(spec).is_dir() else spec.split(":")[0]


def _loaded(spec: str, label: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise Refused(f"{label} needs a package: pip install datasets ({error})") from None
    folder = Path(spec)
    try:
        if any((folder / name).is_file() for name in SAVED):
            return datasets.load_from_disk(spec)
        if folder.is_dir():
            return datasets.load_dataset(spec)
        name, _, config = spec.partition(":")
        with hub.offline_where_unreachable():
            return datasets.load_dataset(name, config or None)
    except Exception as error:  # many kinds: no network, no such name, no such configuration, broken files
        raise Refused(f"{label}: {_what_failed(folder, error)}") from error


def _what_failed(folder: Path, error: BaseException) -> str:
    if folder.is_dir() and error.__cause__ is not None:  # "An error occurred while generating the dataset" says little
        return _what_failed(folder, error.__cause__)
    reason = error_text(error)
    if folder.is_dir():
        return f"cannot be read as a dataset ({reason}); a folder of save_to_disk or with data files works"
    if "Config name is missing" in str(error):
        return f"which configuration? org/name:config chooses one ({reason})"
    unreachable = hub.out_of_reach()
    if unreachable is not None:
        return f"no such folder here{hub.near(folder)}, and as a hub name it cannot be loaded: {unreachable}"
    return f"no such folder here, and no such dataset could be fetched from the hub ({reason})"
