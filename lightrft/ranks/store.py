"""A line to the other ranks that needs none of them to be in a collective operation: torch's key-value store."""

from __future__ import annotations

import os
from datetime import timedelta

from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

WAIT = timedelta(seconds=5)
NOBODY_THERE = (RuntimeError, OSError, KeyError, ValueError)  # the last two: no address, or no port, is given


class Line:
    """A client of its own of the store at MASTER_ADDR:MASTER_PORT, which torchrun or rank 0 serves.

    It is made when it is first needed and possible. Where there is nobody to talk to, or nobody any more, what is told
    is lost and nothing is heard: who asks goes by what it knows itself.

    run: number of the run in this process; each has its own keys.
    """

    def __init__(self, run: int) -> None:
        self._run = run
        self._store: PrefixStore | None = None

    def add(self, key: str, amount: int) -> int | None:
        """The sum of what all have added; None where it cannot be known."""
        try:
            return self._connected().add(key, amount)
        except NOBODY_THERE:
            return None

    def set(self, key: str, text: str) -> None:
        try:
            self._connected().set(key, text)
        except NOBODY_THERE:
            return

    def get(self, key: str) -> str | None:
        """What was set; None where nothing is, or it cannot be known."""
        try:
            store = self._connected()
            return store.get(key).decode() if store.check([key]) else None
        except NOBODY_THERE:
            return None

    def _connected(self) -> PrefixStore:
        if self._store is None:
            host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            client = TCPStore(host, port, is_master=False, timeout=WAIT)
            self._store = PrefixStore(f"lightrft/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{self._run}", client)
        return self._store
