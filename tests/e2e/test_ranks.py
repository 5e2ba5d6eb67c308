"""The whole loop on several ranks: the run of one rank, to the rounding of sums."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ranks import run_on
from runs import files, rows, words
