"""Faults that are real: a disk that takes no more bytes, and what the service of wandb can meet."""

from __future__ import annotations

import resource
from contextlib import contextmanager

import pytest


@pytest.fixture
def full_disk():
    """`with full_disk(limit):` the kernel lets no file grow beyond `limit` bytes, as if the disk were full there."""

    @contextmanager
    def limited(limit):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def warnings(capsys):
    """() -> the lines on stderr since the last call."""
    return lambda: capsys.readouterr().err.splitlines()
