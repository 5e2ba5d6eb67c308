"""Bytes that stay in a dataset's memory-mapped file until they are asked for: a row holds where they are.

So a dataset of a million images is opened without a look at any of them, and the processes of a machine share it.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

ROWS = 1000  # of a table that are looked at together
OPENED: dict[str, Table] = {}  # those of this process that came with a message, by fingerprint


class Table:
    """A dataset in Arrow's format. Sent to another process it is opened there once, not once for each row of it."""

    def __init__(self, dataset: Any) -> None:
        self.dataset, self.letter = dataset, b""

    def __reduce__(self) -> tuple[Any, ...]:
        self.letter = self.letter or pickle.dumps(self.dataset)  # where its file is
        return _opened, (self.dataset._fingerprint, self.letter)


def _opened(fingerprint: str, letter: bytes) -> Table:
    if fingerprint not in OPENED:
        OPENED[fingerprint] = Table(pickle.loads(letter))
    return OPENED[fingerprint]


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes at `path` (names and indices) in one row of a table; `size` of them."""

    table: Table = field(repr=False, compare=False)
    row: int
    path: tuple[str | int, ...]
    size: int

    def read(self) -> bytes:
        name, *rest = self.path
        cell = self.table.dataset[self.row].column(name)[0]
        for step in rest:
            cell = cell[step]
        return cell.as_py()


def holds_bytes(kind: Any) -> bool:
    """Whether values of an Arrow type have bytes in them, at any depth of objects and lists."""
    import pyarrow

    if _is_bytes(kind):
        return True
    if pyarrow.types.is_struct(kind):
        return any(holds_bytes(kind.field(index).type) for index in range(kind.num_fields))
    return _is_list(kind) and holds_bytes(kind.value_type)


def plain_rows(dataset: Any) -> Iterator[dict[str, Any]]:
    """The rows of a `datasets.Dataset` as plain objects: no image is decoded, and all bytes are `Stored`."""
    if not any(holds_bytes(column.type) for column in dataset.features.arrow_schema):
        return iter(dataset.with_format(None))  # a saved format would give arrays where lists were
    return _stored_rows(Table(dataset.with_format("arrow")))


def _stored_rows(table: Table) -> Iterator[dict[str, Any]]:
    first = 0
    for part in table.dataset.iter(ROWS):
        columns = [_values(column.combine_chunks()) for column in part.columns]
        for index, cells in enumerate(zip(*columns, strict=True)):
            named = zip(part.column_names, cells, strict=True)
            yield {name: _placed(cell, table, first + index, (name,)) for name, cell in named}
        first += len(part)


class _Size(int):
    """How many bytes there are, in the place of them."""


def _values(array: Any) -> list[Any]:
    """An Arrow array as Python objects, with a `_Size` for bytes, which are not touched."""
    import pyarrow
    from pyarrow import compute

    if isinstance(array, pyarrow.ChunkedArray):
        return [value for chunk in array.chunks for value in _values(chunk)]
    if not holds_bytes(array.type):
        return array.to_pylist()
    if _is_bytes(array.type):
        sizes: list[int | None] = compute.binary_length(array).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
        return [None if size is None else _Size(size) for size in sizes]
    there = array.is_valid().to_pylist()
    if pyarrow.types.is_struct(array.type):
        names = [array.type.field(index).name for index in range(array.type.num_fields)]
        cells = zip(*map(_values, array.flatten()), strict=True)
        return [
            dict(zip(names, each, strict=True)) if is_there else None
            for each, is_there in zip(cells, there, strict=True)
        ]
    items = iter(_values(array.flatten()))
    lengths = compute.list_value_length(array).to_pylist()  # pyright: ignore[reportAttributeAccessIssue]
    return [None if length is None else [next(items) for _ in range(length)] for length in lengths]


def _placed(value: Any, table: Table, row: int, path: tuple[str | int, ...]) -> Any:
    if isinstance(value, _Size):
        return Stored(table, row, path, int(value))
    if isinstance(value, dict):
        return {name: _placed(item, table, row, (*path, name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_placed(item, table, row, (*path, index)) for index, item in enumerate(value)]
    return value


def _is_bytes(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)


def _is_list(kind: Any) -> bool:
    import pyarrow

    return pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)
