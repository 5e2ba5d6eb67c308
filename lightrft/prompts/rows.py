"""From a row of any file to a prompt: texts, chats, TRL's and verl's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightrft.args.groups.data import LABEL
from lightrft.prompts.bad_rows import BadRow, separator_remedy
from lightrft.prompts.chats import Messages, messages_of, without_gaps
from lightrft.prompts.media.columns import kept_columns, media_columns
from lightrft.prompts.media.marks import with_parts
from lightrft.types import Prompt

if TYPE_CHECKING:
    from lightrft.args.groups.data import DataArgs


def prompt_of(row: Any, where: str, stem: str, data: DataArgs, origin: int) -> Prompt:
    """The row as a prompt without an id. `stem` names the source of a row that does not. Raises `BadRow`."""
    if isinstance(row, BadRow):  # the reader could make no row
        raise row
    if not isinstance(row, dict):
        raise BadRow(f'the row is a {type(row).__name__}; a JSON object such as {{"prompt": "..."}} works')
    _check_texts(row, "")
    row = {key: without_gaps(value) for key, value in row.items()}
    messages, conversational = _messages(row, data.input_key)
    columns = media_columns(row, data)
    messages, media = with_parts(messages, {kind: cell for kind, (_, cell) in columns.items()})
    return Prompt(
        id="",
        messages=messages,
        reference=_reference(row, data),
        source=_source(row, stem, data),
        columns=kept_columns(row, data.input_key, {key for key, _ in columns.values()}),
        where=where,
        origin=origin,
        conversational=conversational,
        images=media.get("image", ()),
        videos=media.get("video", ()),
    )


def _reference(row: Mapping[str, Any], data: DataArgs) -> Any:
    """The column asked for; else verl's `reward_model: {"ground_truth": ...}`; else the label's column, or None."""
    if data.reference_key is not None:
        return _required(row, data.reference_key, "--reference_key")
    verl = row.get("reward_model")
    truth = verl.get("ground_truth") if isinstance(verl, Mapping) and data.label_key == LABEL else None
    return row.get(data.label_key) if truth is None else truth


def _source(row: Mapping[str, Any], stem: str, data: DataArgs) -> str:
    if data.source_key is not None:
        return str(_required(row, data.source_key, "--source_key"))
    return str(row.get("data_source") or row.get("source") or stem)


def _required(row: Mapping[str, Any], key: str, flag: str) -> Any:
    if row.get(key) is None:
        what = "is empty" if key in row else "is not there"
        raise BadRow(f"the column of {flag} {key} {what}; keys there: {', '.join(row)}")
    return row[key]


def _messages(row: Mapping[str, Any], key: str) -> tuple[Messages, bool]:
    if key not in row:
        remedy = separator_remedy(list(row)) or "name the prompt's with --input_key"
        raise BadRow(f"no key '{key}'; keys there: {', '.join(row) or 'none'}; {remedy}")
    return messages_of(row[key], key)


def _check_texts(value: Any, place: str) -> None:
    """JSON can name half a character, such as \\ud800, which no encoding of text has."""
    if isinstance(value, dict):
        for key, item in value.items():
            _check_texts(key, place or f"a key {key!r}")
            _check_texts(item, place or f"'{key}'")
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, place)
    elif isinstance(value, str):
        halves = [] if value.isascii() else [letter for letter in value if "\ud800" <= letter <= "\udfff"]
        if halves:
            raise BadRow(f"{place} holds {halves[0]!r}, which is half of a character; write the whole one")
