"""What a prompt's column holds, understood as chat messages: a text, a chat, or a chat in another library's form.

Tables give every object the keys that any row has, and null where a row has none. So a null inside an object is the
same as no such key, in every format. Objects that differ from row to row may stand there as JSON text, where it stays.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from lightrft.prompts.bad_rows import BadRow

Messages = tuple[Mapping[str, Any], ...]
Content = str | tuple[Mapping[str, Any], ...]  # of a message: a text, or parts
ROLES = ("system", "developer", "user", "assistant", "tool")
SHAREGPT = {  # `{"from": ..., "value": ...}`
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
WRAPPERS = ("messages", "conversations")  # the only key of an object that holds a chat
MESSAGE = tuple('{"' + name + '"' for name in ("role", "content", "from", "value"))  # how one is written
CHAT = tuple(start + one for start in ("[", *('{"' + name + '":[' for name in WRAPPERS)) for one in MESSAGE)
NO_CONTENT = ("tool_calls", "reasoning_content", "reasoning", "thinking")  # a turn with one of these may have no text
MEDIA = {"image": "image", "image_url": "image", "input_image": "image", "video": "video", "video_url": "video"}
FORMS: tuple[set[str], ...] = ({"role", "content"}, {"from", "value"})


def messages_of(value: Any, key: str) -> tuple[Messages, bool]:
    """The messages, and whether they were a chat: a text is one user turn. Raises `BadRow`.

    A content with images or videos among its parts stays a tuple of parts, any other is a text.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadRow(f"'{key}' is {'empty' if value is None else 'an empty text'}")
    content = _written_chat(value, key) if isinstance(value, str) else _listed(value, key)
    if isinstance(content, str):
        return ({"role": "user", "content": content},), False
    if not isinstance(content, list):
        raise BadRow(f"'{key}' is of type {type(value).__name__}; a text or a list of chat messages works")
    return _chat(content, key), True


def without_gaps(value: Any) -> Any:
    """The same without the keys of objects, at any depth, that are null; a null in a list has a place and stays."""
    if isinstance(value, dict):
        return {key: without_gaps(item) for key, item in value.items() if item is not None}
    return [without_gaps(item) for item in value] if isinstance(value, list) else value


def from_json(value: Any) -> Any:
    """What a text says in JSON; any other value, and a text that is no JSON, as it is."""
    try:
        return json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        return value


def _written_chat(text: str, key: str) -> Any:
    """The chat that a text holds, as JSON or as Python prints it; else the text."""
    start = "".join(text[:80].split()).replace("'", '"')
    if not start.startswith((*CHAT, "{")):
        return text
    value = from_json(text)
    if isinstance(value, str) and start.startswith((*CHAT, *MESSAGE)):
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            if start.startswith(CHAT):
                raise BadRow(f"'{key}' begins as a list of messages in a text and is no valid JSON") from None
    messages = _listed(value, key)
    return messages if isinstance(messages, list) else text


def _listed(value: Any, key: str) -> Any:
    """A list of messages also from one message by itself, from an object that holds the list under its name, and from
    an object of columns, as older `datasets` kept lists; any other value as it is.
    """
    wrapper = next((name for name in WRAPPERS if isinstance(value, dict) and _is_chat(value.get(name))), None)
    if wrapper is not None:
        if others := [name for name in value if name != wrapper]:
            raise BadRow(f"'{key}' holds {others[0]!r} beside its {wrapper}; give that a column of its own")
        return value[wrapper]
    form = next((form for form in FORMS if isinstance(value, dict) and form <= value.keys()), None)
    if form is None:
        return value
    columns = {name: column for name, column in value.items() if isinstance(column, list)}
    if form <= columns.keys() and len({len(column) for column in columns.values()}) == 1:
        return [without_gaps(dict(zip(columns, each, strict=True))) for each in zip(*columns.values(), strict=True)]
    return [value]


def _is_chat(value: Any) -> bool:
    each = value if isinstance(value, list) else []
    return bool(each) and all(isinstance(one, dict) and ("role" in one or "from" in one) for one in each)


def _chat(value: list[Any], key: str) -> Messages:
    messages = tuple(_message(message, f"'{key}'[{index}]") for index, message in enumerate(value))
    roles = [message["role"] for message in messages]
    present = f"roles there: {', '.join(roles) or 'none'}"
    if "user" not in roles:
        raise BadRow(f"'{key}' has no user turn ({present})")
    if unknown := [role for role in roles if role not in ROLES]:
        raise BadRow(f"'{key}' has a turn of role {unknown[0]!r}; {', '.join(ROLES)} work")
    if roles[-1] == "system":
        raise BadRow(f"'{key}' ends in a system turn ({present}); a user turn asks for an answer")
    if roles[-1] == "assistant" and messages[-1].get("tool_calls"):
        raise BadRow(f"'{key}' ends in a tool call; add the turn of role tool with its result, or leave the call out")
    if not any(message["role"] == "user" and _says_something(message["content"]) for message in messages):
        raise BadRow(f"'{key}' has no user turn with text")
    return messages


def _says_something(content: Content) -> bool:
    """Text that is more than white space, or an image or video."""
    return bool(content.strip()) if isinstance(content, str) else True


def _message(message: Any, place: str) -> Mapping[str, Any]:
    message = _from_sharegpt(message)
    if isinstance(message, dict) and isinstance(message.get("role"), str):
        message = _from_functions(message, place)
        if message.get("tool_calls"):
            message = {**message, "tool_calls": _calls(message["tool_calls"], place)}
        content = message.get("content")
        if content is None and any(message.get(name) for name in NO_CONTENT):  # null in OpenAI's form, or not there
            content = ""
        if isinstance(content, str):
            return {**message, "content": content}
        if isinstance(content, list):
            return {**message, "content": _parts(content, place)}
    raise BadRow(f'{place} is not of the form {{"role": "user", "content": "..."}}')


def _from_functions(message: dict[str, Any], place: str) -> dict[str, Any]:
    """OpenAI's older form of a tool call and of its result, which templates do not know, as the newer one."""
    if message["role"] == "function":
        message = {**message, "role": "tool"}
    if not message.get("function_call") or message.get("tool_calls"):
        return message
    function = from_json(message["function_call"])
    if not isinstance(function, dict):
        raise BadRow(f"{place} has a function_call that is no object, nor JSON text of one")
    rest = {name: value for name, value in message.items() if name != "function_call"}
    return {**rest, "tool_calls": [{"type": "function", "function": function}]}


def _from_sharegpt(message: Any) -> Any:
    if not (isinstance(message, dict) and FORMS[1] <= message.keys() and "role" not in message):
        return message
    speaker = message["from"]
    role = SHAREGPT.get(speaker, speaker) if isinstance(speaker, str) else speaker
    rest = {key: value for key, value in message.items() if key not in ("from", "value")}
    return {"role": role, "content": message["value"], **rest}


def _calls(value: Any, place: str) -> list[Any]:
    """Tool calls whose arguments are an object: templates write them as JSON, and a text would be quoted once more."""
    calls = from_json(value)
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in calls):
        raise BadRow(f"{place} has tool_calls that are no list of objects, nor JSON text of one")
    return [_call(call) for call in calls]


def _call(call: dict[str, Any]) -> dict[str, Any]:
    changed = {"function": _call(call["function"])} if isinstance(call.get("function"), dict) else {}
    arguments = from_json(call.get("arguments"))
    return {**call, **changed, **({"arguments": arguments} if isinstance(arguments, dict) else {})}


def _parts(content: list[Any], place: str) -> Content:
    """The text, or where there are images or videos the parts, each of type text, image or video (media/marks.py)."""
    parts = tuple(_part(part, place) for part in content)
    return parts if any(part["type"] != "text" for part in parts) else "".join(part["text"] for part in parts)


def _part(part: Any, place: str) -> Mapping[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else type(part).__name__
    if kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if isinstance(kind, str) and kind in MEDIA and isinstance(part, dict):
        return {**part, "type": MEDIA[kind]}
    raise BadRow(f'{place} holds a part of type {kind}; {{"type": "text", "text": "..."}}, image and video work')
