"""Which columns of a row hold its media, and what is kept of all columns for rewards to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightrft.prompts.media.references import LONGEST_NAME, is_pil, references_of
from lightrft.prompts.media.stored import Stored

if TYPE_CHECKING:
    from lightrft.args.groups.data import DataArgs

IMAGES, NONE = "images", "none"  # the default of --images_key, and what makes plain columns of all of them
VIDEOS = ("videos", "video")


def media_columns(row: Mapping[str, Any], data: DataArgs) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """By kind: the column's name and its media. A kind without a column is left out. Raises `BadRow`."""
    if data.images_key == NONE:
        return {}
    names = {"image": (IMAGES, "image") if data.images_key == IMAGES else (data.images_key,), "video": VIDEOS}
    there = {kind: [name for name in each if name in row and name != data.input_key] for kind, each in names.items()}
    chosen = {kind: next((n for n in each if row[n] is not None), each[0]) for kind, each in there.items() if each}
    return {kind: (name, references_of(row[name], kind, name)) for kind, name in chosen.items()}


def kept_columns(row: Mapping[str, Any], input_key: str, media: set[str]) -> dict[str, Any]:
    """All columns but the prompt's, without a second copy of the media: of a column in `media` the paths are left.

    Bytes that a dataset has in other columns are read, but those of an image beside its path: the path is enough.
    """
    return {key: _names(value) if key in media else _read(value) for key, value in row.items() if key != input_key}


def _names(value: Any) -> Any:
    """The same with null for what is large: bytes, images, texts in base64. An object loses such keys."""
    if isinstance(value, dict):
        named = {name: _names(item) for name, item in value.items()}
        return {name: item for name, item in named.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [_names(item) for item in value]
    is_large = isinstance(value, (bytes, bytearray, Stored)) or is_pil(value)
    return None if is_large or (isinstance(value, str) and len(value) > LONGEST_NAME) else value


def _read(value: Any) -> Any:
    if isinstance(value, Stored):
        return value.read()
    if isinstance(value, dict):
        is_image = isinstance(value.get("bytes"), Stored) and value.keys() <= {"bytes", "path"}
        return _names(value) if is_image else {name: _read(item) for name, item in value.items()}
    return [_read(item) for item in value] if isinstance(value, list) else value
