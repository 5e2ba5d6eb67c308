"""Where a prompt's media stand in its messages: in typed parts, at marks in the text, or before it.

parts    [{"type": "image"}, {"type": "text", "text": "What is it?"}]     TRL; a part may carry its image (OpenAI)
marks    "<image>What is it?"                                             verl, LLaVA
none     "What is it?"                  the media stand before the text of the first user turn, images first (TRL)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.chats import Content, Messages
from lightrft.prompts.media.references import CARRIERS, KINDS, OPTIONS, reference_of

Part = Mapping[str, Any]
Media = Mapping[str, tuple[Any, ...]]  # by kind
MARKS = re.compile("|".join(f"<{kind}>" for kind in KINDS))


def with_parts(messages: Messages, columns: Media) -> tuple[Messages, Media]:
    """The messages in Hugging Face's form, and the media in the order of their parts. Raises `BadRow`.

    columns: media of the row's own columns, by kind; a kind that the row has no column of is not there, and its marks
    are plain text. In a row with media the content of every message becomes a tuple of parts, without the media; in
    one without, every content is a text.
    """
    if any(not isinstance(message["content"], str) for message in messages):
        return _filled(messages, columns)
    marked = _marked(messages, columns)
    if not any(columns.values()):
        return messages, columns
    return tuple(
        {**message, "content": joined(parts)} for message, parts in zip(messages, marked, strict=True)
    ), columns


def text_of(content: str | Sequence[Part]) -> str:
    """The text of a message, without its media."""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def parts_in(messages: Messages) -> list[Part]:
    """Of all messages, one after another."""
    return [part for message in messages for part in _parts(message["content"])]


def kinds_in(messages: Messages) -> list[str]:
    """The kind of each image and video, in the order of their parts."""
    return [part["type"] for part in parts_in(messages) if part["type"] in KINDS]


def joined(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Neighbouring texts as one; a message without anything has one empty text, for templates ask for a first part."""
    made: list[Part] = []
    for part in parts:
        if part["type"] != "text":
            made.append(part)
        elif made and made[-1]["type"] == "text":
            made[-1] = text_part(made[-1]["text"] + part["text"])
        elif part["text"]:
            made.append(text_part(part["text"]))
    return tuple(made) or (text_part(""),)


def in_form_of(messages: Messages, text: str) -> Content:
    """A text as the content of one more message beside these."""
    return text if isinstance(messages[0]["content"], str) else (text_part(text),)


def text_part(text: str) -> Part:
    return {"type": "text", "text": text}


def around(content: tuple[Part, ...], pieces: list[str]) -> tuple[Part, ...]:
    """The content between pieces of text, once between each two; media that lead it stay in front of them all, and
    those inside it stand there the first time.
    """
    first = next((index for index, part in enumerate(content) if part["type"] == "text"), len(content))
    lead, rest = content[:first], content[first:]
    again = text_part(text_of(rest))
    after = [part for piece in pieces[2:] for part in (again, text_part(piece))]
    return joined((*lead, text_part(pieces[0]), *rest, text_part(pieces[1]), *after))


def with_slices(messages: Messages, slices: Sequence[int]) -> Messages:
    """With a part for each slice where a volume stands among the images; slices: of each image, see `types.Media`."""
    counts = iter(slices)

    def repeated(content: Content) -> Content:
        if isinstance(content, str):
            return content
        return tuple(part for part in content for _ in range(next(counts, 1) if part["type"] == "image" else 1))

    return tuple({**message, "content": repeated(message["content"])} for message in messages)


def _filled(messages: Messages, columns: Media) -> tuple[Messages, Media]:
    """Of messages with parts: each part takes the media that it carries, or the next one of the row's column."""
    left = {kind: iter(columns.get(kind, ())) for kind in KINDS}
    missing, carried = dict.fromkeys(KINDS, 0), dict.fromkeys(KINDS, 0)
    found: dict[str, list[Any]] = {kind: [] for kind in KINDS}

    def bare(part: Part) -> Part:
        if (kind := part["type"]) not in KINDS:
            return part
        own = {name: part[name] for name in ("bytes", *CARRIERS, *OPTIONS) if part.get(name) is not None}
        count = 1 + missing[kind] + carried[kind]
        if own:
            carried[kind] += 1
            found[kind].append(reference_of(own, kind, f"{kind} {count} of the messages"))
        else:
            missing[kind] += 1
            found[kind] += islice(left[kind], 1)
        return {"type": kind}

    contents = [_parts(message["content"]) for message in messages]
    bared = [joined(map(bare, parts)) for parts in contents]
    for kind in KINDS:
        _check_count(kind, missing[kind], len(columns.get(kind, ())), f"{kind} parts without one of their own", "part")
    made = tuple({**message, "content": parts} for message, parts in zip(messages, bared, strict=True))
    return made, {kind: tuple(values) for kind, values in found.items()}


def _marked(messages: Messages, columns: Media) -> list[list[Part]]:
    """The parts of each message: at the marks of those kinds that the row has, else before the first user turn."""
    lead: list[Part] = []
    for kind, media in columns.items():
        marks = sum(message["content"].count(f"<{kind}>") for message in messages)
        if marks:
            _check_count(kind, marks, len(media), f"marks <{kind}> in the text", "mark")
        else:
            lead += [{"type": kind}] * len(media)
    asked = next((index for index, message in enumerate(messages) if message["role"] == "user"), 0)
    split = [list(_split(message["content"], columns)) for message in messages]
    return [[*(lead if index == asked else []), *parts] for index, parts in enumerate(split)]


def _split(text: str, columns: Media) -> Iterator[Part]:
    start = 0
    for mark in MARKS.finditer(text):
        kind = mark[0][1:-1]
        if kind in columns:
            yield from (text_part(text[start : mark.start()]), {"type": kind})
            start = mark.end()
    yield text_part(text[start:])


def _parts(content: str | Iterable[Part]) -> Iterable[Part]:
    return [text_part(content)] if isinstance(content, str) else content


def _check_count(kind: str, places: int, media: int, what: str, one: str) -> None:
    if places != media:
        raise BadRow(f"{what}: {places}; {kind}s in the row's column: {media}; each {kind} needs one {one}")
