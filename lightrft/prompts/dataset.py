"""The prompts of `--prompt_data` and `--eval_data`: of files, datasets, and reasoning_gym's procedural tasks."""

from __future__ import annotations

import gc
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightrft.args.groups.data import GENERATED, LABEL
from lightrft.errors import Refused
from lightrft.prompts import gym
from lightrft.prompts.bad_rows import BadRow, BadRows, origins
from lightrft.prompts.chats import Content, Messages
from lightrft.prompts.hf_datasets import NAME, dataset_rows, source_name
from lightrft.prompts.media.columns import IMAGES, NONE
from lightrft.prompts.media.marks import around, in_form_of
from lightrft.prompts.media.references import identity
from lightrft.prompts.readers import READERS, Rows
from lightrft.prompts.rows import prompt_of
from lightrft.types import Prompt

if TYPE_CHECKING:
    from lightrft.args.groups.data import DataArgs

WORKS = f"{', '.join(READERS)} files, dataset folders, org/name of the hub, and {GENERATED}<task> work"
FILE_TYPE = re.compile(r"\.[A-Za-z]+")  # a suffix; what follows the point in org/name-1.5 is none


def load_prompts(
    specs: Sequence[str], split: str, data: DataArgs, flag: str = "--prompt_data", bad: BadRows | None = None
) -> list[Prompt]:
    """All prompts of `specs`, in their order, each with an id that is unique among them.

    A spec is a file, a dataset (see `hf_datasets`), or `reasoning_gym:<task>?key=value&key=value` (see `gym`). A file
    is one split and is used whole; `split` chooses among the others' splits. Bad rows are added to `bad`.

    Ids depend on content alone (source, the row's own messages and media, which repetition it is): reordering a file,
    another `--system_prompt` or another `--input_template` keeps them. Raises `Refused`, one line, for what is wrong.
    """
    bad = bad or BadRows(flag, data.on_bad_row == "skip")
    check_template(data.input_template)
    if not specs:
        raise Refused(f"{flag} names no data; {WORKS}")
    with _without_collection():
        prompts = [prompt for origin, spec in enumerate(specs) for prompt in _load_one(spec, split, data, bad, origin)]
        bad.settle(set(range(len(specs))) - origins(prompts))
        _check_columns(prompts, data, bad.flag)
        return [
            replace(prompt, id=name, messages=_with_flags(prompt.messages, data))
            for prompt, name in zip(prompts, _ids(prompts), strict=True)
        ]


@contextmanager
def _without_collection() -> Iterator[None]:
    """Rows hold no circles. Python looks for some again and again as they come: a third of the time of a million."""
    is_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_on:
            gc.enable()


def _load_one(spec: str, split: str, data: DataArgs, bad: BadRows, origin: int) -> list[Prompt]:
    if spec.startswith(GENERATED):
        questions = _from_gym(spec, split, bad.flag, origin)
        bad.read += len(questions)
        return questions
    source, rows = _open(spec, split, bad.flag)
    before, prompts, folder = bad.read, [], _folder(spec)
    for where, row in rows:
        bad.read += 1
        try:
            prompt = prompt_of(row, where, source, data, origin)
            prompts.append(replace(prompt, folder=folder) if prompt.has_media else prompt)
        except BadRow as fault:
            bad.add(origin, where, str(fault))
        except RecursionError:  # JSON and tables may nest deeper than a function can call itself
            bad.add(origin, where, "it is nested too deeply")
    if bad.read == before:
        raise Refused(f"{bad.flag} {spec} is empty; it needs at least one row")
    return prompts


def _open(spec: str, split: str, flag: str) -> tuple[str, Rows]:
    """The default name of the source, and its rows."""
    path, label = Path(spec), f"{flag} {spec}"
    if path.suffix in READERS:
        return path.stem, READERS[path.suffix](spec, label)
    if path.is_dir():
        return source_name(spec), dataset_rows(spec, split, label)
    if path.is_file() or FILE_TYPE.fullmatch(path.suffix):
        raise Refused(f"{label}: unsupported file type; {WORKS}")
    if NAME.fullmatch(spec):
        return source_name(spec), dataset_rows(spec, split, label)
    raise Refused(f"{label}: no such file or folder (looked in {Path.cwd()}); {WORKS}")


def _folder(spec: str) -> str:
    """Where relative paths of a row's media begin: the folder of its file; "" for a dataset of the hub."""
    return spec if Path(spec).is_dir() else str(Path(spec).parent) if Path(spec).is_file() else ""


def _from_gym(spec: str, split: str, flag: str, origin: int) -> list[Prompt]:
    source = spec.split("?")[0]
    return [
        Prompt(
            id="",
            messages=({"role": "user", "content": entry["question"]},),
            reference=entry["answer"],
            source=source,
            columns={"entry": entry},
            where=f"{source} question {index}",
            origin=origin,
        )
        for index, entry in gym.draw_entries(spec, split, flag)
    ]


def _ids(prompts: Sequence[Prompt]) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for prompt in prompts:
        media = [[identity(reference) for reference in (*prompt.images, *prompt.videos)]] if prompt.has_media else []
        content = json.dumps([prompt.source, prompt.messages, *media], sort_keys=True, default=str)
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        seen[digest] += 1
        yield digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


def _check_columns(prompts: Sequence[Prompt], data: DataArgs, flag: str) -> None:
    """Refuses a column that was asked for and that no row has: nothing else would say that it is not there."""
    rows = [prompt for prompt in prompts if not prompt.source.startswith(GENERATED)]
    asked_for = {
        "--label_key": data.label_key if data.label_key != LABEL and data.reference_key is None else None,
        "--images_key": data.images_key if data.images_key not in (IMAGES, NONE) else None,
    }
    for name, column in asked_for.items():
        if column is not None and rows and not any(column in prompt.columns for prompt in rows):
            present = ", ".join(sorted({key for prompt in rows for key in prompt.columns})) or "none"
            raise Refused(f"{name} {column}: no row of {flag} has this column; columns there: {present}")


def check_template(template: str | None) -> None:
    """`{prompt}`, once or more often, or else `{}` exactly once: a formula such as \\boxed{} keeps its braces."""
    if template is None or "{prompt}" in template or template.count("{}") == 1:
        return
    what = f"{{}} stands there {template.count('{}')} times" if "{}" in template else "the prompt has no place in it"
    raise Refused(f"--input_template {template!r}: {what}; write {{prompt}} where the prompt goes")


def _with_flags(messages: Messages, data: DataArgs) -> Messages:
    """With `--input_template` around the last user turn, and `--system_prompt` before a chat that has none."""
    if data.input_template is not None:
        last = max(index for index, message in enumerate(messages) if message["role"] == "user")
        turn = {**messages[last], "content": _filled(data.input_template, messages[last]["content"])}
        messages = (*messages[:last], turn, *messages[last + 1 :])
    if data.system_prompt and not any(message["role"] == "system" for message in messages):
        messages = ({"role": "system", "content": in_form_of(messages, data.system_prompt)}, *messages)
    return messages


def _filled(template: str, content: Content) -> Content:
    """Around parts, images that lead them stay in front; a prompt that stands there twice is text the second time."""
    pieces = template.split("{prompt}" if "{prompt}" in template else "{}")
    return content.join(pieces) if isinstance(content, str) else around(content, pieces)
