"""Requests of prompts with images: read when they are asked for, or ahead of that by threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

from lightrft.prompts.bad_rows import BadRow

if TYPE_CHECKING:
    from lightrft.types import Prompt, Request

Key = tuple[str, str, str]


class Reader:
    """read: a prompt's images, to a request without seeds. threads: that read ahead; 0 = nothing is read ahead.

    A request is held until it is asked for, or until `keep` says that nobody will.
    """

    def __init__(self, read: Callable[[Prompt], Request], threads: int) -> None:
        self.read = read
        self.held: dict[Key, Future[Request]] = {}
        self.pool = ThreadPoolExecutor(threads, "reads images") if threads else None

    def request(self, prompt: Prompt) -> Request:
        """Raises `BadRow`."""
        held = self.held.pop(_key(prompt), None)
        return self.read(prompt) if held is None else held.result()

    def begin(self, prompts: Iterable[Prompt]) -> int:
        """Begins to read those that are not held, where there are threads; how many."""
        new = [prompt for prompt in prompts if self.pool and prompt.has_media and _key(prompt) not in self.held]
        self.held |= {_key(prompt): self.pool.submit(self.read, prompt) for prompt in new if self.pool}
        return len(new)

    def fault_of(self, prompt: Prompt) -> str | None:
        """Why a prompt cannot be used; of one that can the request is held."""
        if not prompt.has_media:
            return None
        try:
            request = self.request(prompt)
        except BadRow as fault:
            return str(fault)
        self.held[_key(prompt)] = _ready(request)
        return None

    def keep(self, prompts: Sequence[Prompt]) -> None:
        """Forgets all others: they went to another process, or come much later."""
        wanted = {_key(prompt) for prompt in prompts}
        for key in self.held.keys() - wanted:
            self.held.pop(key).cancel()

    def close(self) -> None:
        """What is not begun is not read any more."""
        if self.pool is not None:
            self.pool.shutdown(wait=False, cancel_futures=True)


def _key(prompt: Prompt) -> Key:
    """Ids are of one flag's data: two data sets may ask the same of images with the same names."""
    return prompt.folder, prompt.where, prompt.id


def _ready(request: Request) -> Future[Request]:
    future: Future[Request] = Future()
    future.set_result(request)
    return future
