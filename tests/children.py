"""Processes that tests start have no part in the group that a test in this process may have begun."""

from __future__ import annotations

import os

GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


def environment(**variables: str) -> dict[str, str]:
    """This process's without its group, whose port it holds; with `variables`."""
    return {name: value for name, value in os.environ.items() if name not in GROUP} | variables
