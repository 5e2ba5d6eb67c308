"""A reader for each type of file. It yields (where, row): the place as a user looks it up, and the row.

Instead of a row that is broken it yields a `BadRow`. It raises `Refused` for a fault of the whole file.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightrft.errors import Refused, error_text
from lightrft.prompts.bad_rows import BadRow, separator_remedy
from lightrft.prompts.media.stored import holds_bytes, plain_rows

Rows = Iterator[tuple[str, Any]]
BATCH = 4096  # rows of a table that are Python objects at a time
LONGEST_CELL = 1 << 30  # characters; Python's own limit is 2^17, which a long document passes


def _with_distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice, and libraries differ in which of the two they take."""
    keys = [key for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise BadRow(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice; keep one of them")
    return dict(pairs)


DECODER, STRICT = json.JSONDecoder(), json.JSONDecoder(object_pairs_hook=_with_distinct_keys)


def jsonl_rows(spec: str, label: str) -> Rows:
    """One JSON object a line. Not `str.splitlines`: U+2028 may stand inside a JSON string."""
    with _readable(label), open(spec, encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{spec}:{number}", _decoded(line)


def _decoded(line: str) -> Any:
    try:
        return STRICT.decode(line.strip())  # else a missing brace is reported on a line of its own
    except BadRow as fault:
        return fault
    except json.JSONDecodeError as error:
        return BadRow(f"invalid JSON ({error.msg}, column {error.colno})")
    except RecursionError:
        return BadRow("invalid JSON (nested too deeply)")
    except ValueError as error:  # an integer of thousands of digits
        return BadRow(f"invalid JSON ({error})")


def json_rows(spec: str, label: str) -> Rows:
    """An array of objects, or one object with a single array in it; each row with the line that it begins on."""
    with _readable(label):
        text = Path(spec).read_text(encoding="utf-8-sig")
    if not text.strip():
        return
    at, counted, line = _array(text, label) + 1, 0, 1
    while text[at := _next(text, at)] != "]":
        line += text.count("\n", counted, at)
        counted = at
        end = DECODER.raw_decode(text, at)[1]
        yield f"{spec}:{line}", _decoded(text[at:end])
        at = _next(text, end)
        at += text[at] == ","


def _array(text: str, label: str) -> int:
    """Where the array of the rows begins, in a text that is valid JSON."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        lines = "; one object a line is .jsonl" if error.msg == "Extra data" else ""
        raise Refused(f"{label}:{error.lineno}: invalid JSON ({error.msg}, column {error.colno}){lines}") from None
    except RecursionError:
        raise Refused(f"{label}: invalid JSON (nested too deeply)") from None
    except ValueError as error:  # an integer of thousands of digits
        raise Refused(f"{label}: invalid JSON ({error})") from None
    if isinstance(whole, list):
        return _next(text, 0)
    arrays = [key for key, value in whole.items() if isinstance(value, list)] if isinstance(whole, dict) else []
    if len(arrays) != 1:
        count = f"there are {len(arrays)}: {', '.join(arrays)}" if arrays else "there is none"
        raise Refused(f"{label}: it must hold one array of objects, and {count}; a .jsonl file has one object a line")
    return _value_of(text, arrays[0])


def _value_of(text: str, wanted: str) -> int:
    """Where the value of the outermost object's key begins; the last one, which counts, if the key is repeated."""
    at, begin = _next(text, 0) + 1, -1
    while text[at := _next(text, at)] != "}":
        key, at = DECODER.raw_decode(text, at)
        at = _next(text, _next(text, at) + 1)  # past the colon
        begin = at if key == wanted else begin
        at = _next(text, DECODER.raw_decode(text, at)[1])
        at += text[at] == ","
    return begin


def _next(text: str, at: int) -> int:
    """The next position that holds no white space, as JSON defines it."""
    while text[at] in " \t\r\n":
        at += 1
    return at


def csv_rows(spec: str, label: str) -> Rows:
    """Comma-separated; the first line names the columns. Every value is a text, and an empty one is None."""
    csv.field_size_limit(LONGEST_CELL)
    with _readable(label), open(spec, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)  # strict: a quote that is never closed would swallow the rest in silence
        try:
            names = _header(reader, label)
            before = reader.line_num
            for cells in reader:
                if cells:
                    yield f"{spec}:{before + 1}", _row_of(names, cells)
                before = reader.line_num
        except csv.Error as error:
            raise Refused(f"{label}:{reader.line_num}: broken CSV ({error})") from None


def _header(reader: Iterator[list[str]], label: str) -> list[str]:
    names = next((cells for cells in reader if cells), [])
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise Refused(f"{label}: two columns are named '{twice[0]}'; give each its own name")
    return names


def _row_of(names: list[str], cells: list[str]) -> Any:
    if len(cells) != len(names):
        remedy = separator_remedy(names) or "quote values with commas"
        return BadRow(f"{len(cells)} values for the {len(names)} columns {', '.join(names)}; {remedy}")
    return {name: cell or None for name, cell in zip(names, cells, strict=True)}


def parquet_rows(spec: str, label: str) -> Rows:
    """Read by batches, so that a large file never becomes Python objects as a whole."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise Refused(f"{label} needs a package: pip install pyarrow ({error})") from None
    try:
        with _readable(label), parquet.ParquetFile(spec) as file:
            if any(holds_bytes(column.type) for column in file.schema_arrow):
                yield from _mapped_rows(spec, label)
                return
            rows = (row for batch in file.iter_batches(BATCH) for row in batch.to_pylist(maps_as_pydicts="lossy"))
            for number, row in enumerate(rows, 1):
                yield f"{spec} row {number}", row
    except pyarrow.ArrowException as error:
        raise Refused(f"{label}: cannot be read as parquet ({' '.join(str(error).split())})") from None


def _mapped_rows(spec: str, label: str) -> Rows:
    """Of a table with bytes in it, such as images: through the file that `datasets` makes of it and maps into memory.

    That file is in the cache of `datasets` and is made once.
    """
    import datasets

    try:
        table = datasets.Dataset.from_parquet(spec)
    except Exception as error:  # many kinds, of the file and of the cache
        raise Refused(f"{label}: cannot be read as parquet ({error_text(error.__cause__ or error)})") from error
    for number, row in enumerate(plain_rows(table), 1):
        yield f"{spec} row {number}", row


@contextmanager
def _readable(label: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise Refused(f"{label}: no such file (looked in {Path.cwd()})") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{label}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise Refused(f"{label}: cannot be read ({error.strerror or error})") from None


READERS: dict[str, Callable[[str, str], Rows]] = {
    ".jsonl": jsonl_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".parquet": parquet_rows,
}
