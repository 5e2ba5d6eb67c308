"""One row of data, whatever file it stood in, understood as a prompt: texts, chats, TRL's and verl's columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightrft.args.groups.data import LABEL
from lightrft.prompts.bad_rows import BadRow
from lightrft.types import Prompt

if TYPE_CHECKING:
    from lightrft.args.groups.data import DataArgs

Messages = tuple[Mapping[str, Any], ...]
ROLES = ("system", "developer", "user", "assistant", "tool")


def prompt_of(row: Any, where: str, stem: str, data: DataArgs, origin: int) -> Prompt:
    """The row as a prompt without an id. `stem` names the source of a row that does not. Raises `BadRow`."""
    if isinstance(row, BadRow):  # the reader could not even make a row of it
        raise row
    if not isinstance(row, dict):
        raise BadRow(f'the row is a {type(row).__name__}; a JSON object such as {{"prompt": "..."}} works')
    return Prompt(
        id="",
        messages=_messages(row, data.input_key),
        reference=_reference(row, data),
        source=_source(row, stem, data),
        columns={key: value for key, value in row.items() if key != data.input_key},
        where=where,
        origin=origin,
        conversational=not isinstance(row[data.input_key], str),
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


def _messages(row: Mapping[str, Any], key: str) -> Messages:
    if key not in row:
        raise BadRow(f"no key '{key}'; keys there: {', '.join(row) or 'none'}; name the prompt's with --input_key")
    value = row[key]
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRow(f"'{key}' is {'empty' if value is None else 'an empty text'}")
    if isinstance(value, str):
        return ({"role": "user", "content": value},)
    if not isinstance(value, list):
        raise BadRow(f"'{key}' is of type {type(value).__name__}; a text or a list of chat messages works")
    return _chat(value, key)


def _chat(value: list[Any], key: str) -> Messages:
    messages = tuple(_message(message, f"'{key}'[{index}]") for index, message in enumerate(value))
    roles = [message["role"] for message in messages]
    there = f"roles there: {', '.join(roles) or 'none'}"
    if "user" not in roles:
        raise BadRow(f"'{key}' has no user turn ({there})")
    if unknown := [role for role in roles if role not in ROLES]:
        raise BadRow(f"'{key}' has a turn of role {unknown[0]!r}; {', '.join(ROLES)} work")
    if roles[-1] == "system":
        raise BadRow(f"'{key}' ends in a system turn ({there}); a user turn asks for an answer")
    if not any(message["role"] == "user" and message["content"].strip() for message in messages):
        raise BadRow(f"'{key}' has no user turn with text")
    return messages


def _message(message: Any, place: str) -> Mapping[str, Any]:
    if isinstance(message, dict) and isinstance(message.get("role"), str):
        content = message.get("content")
        if isinstance(content, str):
            return message
        if isinstance(content, list):
            return {**message, "content": "".join(_text(part, place) for part in content)}
    raise BadRow(f'{place} is not of the form {{"role": "user", "content": "..."}}')


def _text(part: Any, place: str) -> str:
    """The text of one part of a message's content, as in `[{"type": "text", "text": "..."}]`."""
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind in ("image", "image_url", "video", "audio"):
        raise BadRow(f"{place} holds a part of type {kind}, which is not built yet; parts of type text work")
    raise BadRow(f'{place} holds a part of type {kind}; {{"type": "text", "text": "..."}} works')
