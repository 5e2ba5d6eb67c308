"""Prompts from `.jsonl` files and from reasoning_gym's procedural tasks."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightrft.args.groups.data import GENERATED
from lightrft.errors import Refused
from lightrft.prompts import gym
from lightrft.types import Prompt

if TYPE_CHECKING:
    from lightrft.args.groups.data import DataArgs

Messages = tuple[Mapping[str, Any], ...]


class _BadRow(Exception):
    """What is wrong with one row; the reader adds the file, the line and the count of the others."""


def load_prompts(specs: Sequence[str], split: str, data: DataArgs, flag: str = "--prompt_data") -> list[Prompt]:
    """All prompts of `specs`, in their order, each with an id that is unique among them.

    A spec is a `.jsonl` path or `reasoning_gym:<task>?key=value&key=value` (see `gym.draw_entries`). A file is one
    split and is used whole; `split` ("train" or "test") chooses among a reasoning_gym task's questions.

    Ids depend on content alone (source, the row's own messages, which repetition it is): reordering a file, or
    another `--system_prompt`, keeps them. Raises `Refused`, one line, for every fault of the data.
    """
    prompts = [prompt for spec in specs for prompt in _load_one(spec, split, data, flag)]
    if not prompts:
        raise Refused(f"{flag} names no data; give a .jsonl file or {GENERATED}<task>")
    return [_with_system(prompt, data.system_prompt) for prompt in _with_ids(prompts)]


def _load_one(spec: str, split: str, data: DataArgs, flag: str) -> list[Prompt]:
    if spec.startswith(GENERATED):
        return _from_gym(spec, split, flag)
    if Path(spec).suffix != ".jsonl":
        raise Refused(f"{flag} {spec}: unsupported file type; a .jsonl file or {GENERATED}<task> works")
    return _from_jsonl(spec, data, flag)


def _from_gym(spec: str, split: str, flag: str) -> list[Prompt]:
    source = spec.split("?")[0]
    return [
        Prompt(
            id="",
            messages=({"role": "user", "content": entry["question"]},),
            reference=entry["answer"],
            source=source,
            columns={"entry": entry},
            where=f"{source} question {index}",
        )
        for index, entry in gym.draw_entries(spec, split, flag)
    ]


def _from_jsonl(spec: str, data: DataArgs, flag: str) -> list[Prompt]:
    prompts, bad = [], []
    for number, line in _lines(spec, flag):
        where = f"{spec}:{number}"
        try:
            prompts.append(_prompt(_row(line), where, Path(spec).stem, data))
        except _BadRow as error:
            bad.append(f"{where}: {error}")
    if bad:
        others = f" (and {len(bad) - 1} more bad rows)" if len(bad) > 1 else ""
        raise Refused(f"{flag} {bad[0]}{others}")
    if not prompts:
        raise Refused(f"{flag} {spec} is empty; it needs one JSON object a line")
    return prompts


def _lines(spec: str, flag: str) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank. Not `str.splitlines`: U+2028 may stand inside a JSON string."""
    try:
        with open(spec, encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except FileNotFoundError:
        raise Refused(f"{flag} {spec}: no such file (looked in {Path.cwd()})") from None
    except UnicodeDecodeError as error:
        raise Refused(f"{flag} {spec}: not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except OSError as error:
        raise Refused(f"{flag} {spec}: cannot be read ({error.strerror})") from None


def _row(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line.strip())  # else a missing brace is reported on a line of its own
    except json.JSONDecodeError as error:
        raise _BadRow(f"invalid JSON ({error.msg}, column {error.colno})") from None
    if not isinstance(row, dict):
        raise _BadRow(f'the row is a {type(row).__name__}; a JSON object such as {{"prompt": "..."}} works')
    return row


def _prompt(row: dict[str, Any], where: str, stem: str, data: DataArgs) -> Prompt:
    columns = {key: value for key, value in row.items() if key not in (data.input_key, data.label_key)}
    return Prompt(
        id="",
        messages=_messages(row, data.input_key),
        reference=row.get(data.label_key),
        source=str(row.get("source") or stem),
        columns=columns,
        where=where,
    )


def _messages(row: dict[str, Any], key: str) -> Messages:
    if key not in row:
        raise _BadRow(f"no key '{key}'; keys there: {', '.join(row) or 'none'}; name the prompt's with --input_key")
    value = row[key]
    if isinstance(value, str):
        if not value.strip():
            raise _BadRow(f"'{key}' is an empty text")
        return ({"role": "user", "content": value},)
    if not isinstance(value, list):
        raise _BadRow(f"'{key}' is of type {type(value).__name__}; a text or a list of chat messages works")
    return _chat(value, key)


def _chat(value: list[Any], key: str) -> Messages:
    for index, message in enumerate(value):
        texts = [message.get("role"), message.get("content")] if isinstance(message, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise _BadRow(f'\'{key}\'[{index}] is not of the form {{"role": "user", "content": "..."}}')
    if not any(message["role"] == "user" for message in value):
        raise _BadRow(f"'{key}' has no user turn (roles there: {', '.join(m['role'] for m in value) or 'none'})")
    return tuple(value)


def _with_ids(prompts: Sequence[Prompt]) -> list[Prompt]:
    seen: Counter[str] = Counter()
    named = []
    for prompt in prompts:
        content = json.dumps([prompt.source, prompt.messages], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        seen[digest] += 1
        named.append(replace(prompt, id=digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"))
    return named


def _with_system(prompt: Prompt, text: str | None) -> Prompt:
    if not text or any(message["role"] == "system" for message in prompt.messages):
        return prompt
    return replace(prompt, messages=({"role": "system", "content": text}, *prompt.messages))
