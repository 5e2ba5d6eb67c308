"""As on_ranks.py, with the engine that the first word of each command line names, of own_weights.py."""

from __future__ import annotations

import sys

import on_ranks
import own_weights
import runs

from lightrft.build import rollouts


def call(line: list[str]) -> runs.Ended:
    rollouts.LocalEngine = getattr(own_weights, line[0])  # pyright: ignore[reportPrivateImportUsage]
    return runs.call(line[1:])


if __name__ == "__main__":
    on_ranks.call = call
    on_ranks.main(*sys.argv[1:])
