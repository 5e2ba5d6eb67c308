"""References to media: what a row may name an image or a video by. Nothing here opens or decodes one.

An image is a path, bytes, a text in base64 (as it is, or as a data: URL), a PIL image, or the object of an `Image`
column of `datasets`, {"bytes": ..., "path": ...}. A video is the path or the bytes of a video file, of an animated
image or of a volume (.npy, .nii, .nii.gz), the path of a folder of frames, or a list of images.

Whatever else a row writes around these is taken off: {"image": ...}, {"url": ...} and their like, and file://.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.chats import from_json
from lightrft.prompts.media.stored import Stored

KINDS = ("image", "video")
CARRIERS = ("image", "video", "image_url", "video_url", "url", "path", "base64")  # keys of an object that hold one
OPTIONS = (  # of one image or video, as qwen_vl_utils reads them; here they are flags
    *("min_pixels", "max_pixels", "total_pixels", "resized_height", "resized_width"),
    *("fps", "nframes", "min_frames", "max_frames", "video_start", "video_end"),
)
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
BASE64 = re.compile(r"[A-Za-z0-9+/\s]{40,}={0,2}\s*")  # a shorter text is a name
LONGEST_NAME = 1000  # characters; a longer text is no path, and is not kept beside the media


def references_of(cell: Any, kind: str, key: str) -> tuple[Any, ...]:
    """All media of a column's cell: none, one, or a list of them; also as JSON text. Raises `BadRow`."""
    if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
        cell = from_json(cell)
    cells = [] if cell is None else list(cell) if isinstance(cell, (list, tuple)) else [cell]
    return tuple(
        reference_of(value, kind, f"{kind} {number} of {len(cells)} in '{key}'")
        for number, value in enumerate(cells, 1)
    )


def reference_of(value: Any, kind: str, place: str) -> Any:
    """What one image or video is named by. Raises `BadRow`; `place` says which one it is."""
    if isinstance(value, dict):
        return _of_object(value, kind, place)
    if isinstance(value, (list, tuple)) and kind == "video" and value:
        return tuple(
            reference_of(frame, "image", f"frame {number} of {place}") for number, frame in enumerate(value, 1)
        )
    if isinstance(value, (str, Path)):
        return _of_text(str(value), place)
    if isinstance(value, (bytes, bytearray, Stored)) and size_of(value):
        return bytes(value) if isinstance(value, bytearray) else value
    if is_pil(value):
        return value
    empty = value is None or isinstance(value, (bytes, bytearray, Stored))
    raise BadRow(f"{place} is {'empty' if empty else f'of type {type(value).__name__}'}; a path or bytes work")


def _of_object(value: dict[str, Any], kind: str, place: str) -> Any:
    options = [name for name in OPTIONS if value.get(name) is not None]
    if options:
        raise BadRow(f"{place} sets {options[0]!r} for itself; --max_pixels and --fps set such things for all")
    if value.get("bytes") is not None:
        data, path = reference_of(value["bytes"], kind, place), value.get("path")
        return {"bytes": data, "path": path} if path else data
    carried = [value[name] for name in CARRIERS if value.get(name) is not None]
    if len(carried) != 1:
        what = f"holds {len(carried)} of" if carried else "holds none of"
        raise BadRow(f"{place} {what} {', '.join(('bytes', *CARRIERS))}; keys there: {', '.join(value) or 'none'}")
    return reference_of(carried[0], kind, place)


def _of_text(text: str, place: str) -> str:
    if not text.strip():
        raise BadRow(f"{place} is an empty text; a path works")
    scheme = SCHEME.match(text[:40])
    if scheme and scheme[1].lower() == "file":
        return unquote(text[scheme.end() :].removeprefix("localhost"))
    if scheme:
        raise BadRow(
            f"{place} is at an address ({scheme[0]}...), and nothing is fetched; download it and give its path"
        )
    return text


def size_of(data: bytes | bytearray | Stored) -> int:
    return data.size if isinstance(data, Stored) else len(data)


def is_pil(value: Any) -> bool:
    """Without an import of PIL: who holds such an image has imported it."""
    return type(value).__module__.startswith("PIL.") and hasattr(value, "mode")


def identity(reference: Any) -> Any:
    """What a prompt's id has of it, as JSON: a path as it is written, and the digest of bytes.

    Bytes that stay in a dataset's file are not read for it: they have their number, beside the path that they have.
    """
    if isinstance(reference, str):
        return reference if len(reference) <= LONGEST_NAME else _digest(reference.encode())
    if isinstance(reference, bytes):
        return _digest(reference)
    if isinstance(reference, Stored):
        return reference.size
    if isinstance(reference, tuple):
        return [identity(frame) for frame in reference]
    if isinstance(reference, Mapping):
        return {name: identity(value) for name, value in reference.items()}
    return [reference.mode, *reference.size, _digest(reference.tobytes())]


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def name_of(reference: Any) -> Any:
    """Its path, for rewards and messages; of a list of frames those; None of what has none."""
    if isinstance(reference, Mapping):
        reference = reference.get("path")
    if isinstance(reference, tuple):
        return [name_of(frame) for frame in reference]
    is_text = isinstance(reference, str) and len(reference) <= LONGEST_NAME
    return reference if is_text and not reference.startswith("data:") and not BASE64.fullmatch(reference) else None
