"""What a test of a tracker looks at."""

from __future__ import annotations

import pytest


@pytest.fixture
def warnings(capsys):
    """() -> the lines on stderr since the last call."""
    return lambda: capsys.readouterr().err.splitlines()
