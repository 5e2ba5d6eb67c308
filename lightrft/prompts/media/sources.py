"""From a reference to the file or the bytes that it names."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from lightrft.prompts.bad_rows import BadRow
from lightrft.prompts.media.references import BASE64, name_of
from lightrft.prompts.media.stored import Stored


@dataclass(frozen=True)
class Source:
    """A file or a folder, or bytes, or a PIL image. name: as the row writes it, "" where it has none."""

    content: Any
    name: str = ""

    @property
    def is_folder(self) -> bool:
        return isinstance(self.content, Path) and self.content.is_dir()

    def ends_in(self, suffixes: tuple[str, ...]) -> bool:
        return self.name.lower().endswith(suffixes)

    def openable(self) -> Path | BinaryIO:
        """For libraries that read from a path or from a file that is open. Raises `BadRow` for what is neither."""
        if isinstance(self.content, bytes):
            if not self.content:
                raise BadRow("is empty (0 bytes)")
            return BytesIO(self.content)
        if not self.content.is_file():  # to open a pipe would wait for ever
            raise BadRow("is a folder" if self.is_folder else "is no regular file")
        if not self.content.stat().st_size:
            raise BadRow("is empty (0 bytes)")
        return self.content


def source_of(reference: Any, folder: str) -> Source:
    """A path is looked for in `folder`, then in the working directory; else the text may be base64. Raises `BadRow`."""
    name = name_of(reference) or ""
    data = reference["bytes"] if isinstance(reference, Mapping) else reference
    if isinstance(data, Stored):
        return Source(data.read(), name)
    return Source(_of_text(data, folder) if isinstance(data, str) else data, name)


def _of_text(text: str, folder: str) -> Path | bytes:
    if text.startswith("data:"):
        head, comma, data = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise BadRow("is a data: address that is not in base64; data:image/png;base64,... works")
        return _decoded(data)
    for place in dict.fromkeys((folder, "")):
        path = os.path.join(place, os.path.expanduser(text))
        if os.path.exists(path):
            return Path(path)
    if BASE64.fullmatch(text):
        return _decoded(text)
    places = dict.fromkeys(os.path.abspath(place) for place in (folder, ""))
    raise BadRow(f"does not exist (looked in {' and '.join(places)})")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRow(f"is no valid base64 ({error})") from None
