"""The prompts of QUESTIONS in the tiny model's tokens."""

from __future__ import annotations

import pytest
from asked import QUESTIONS


@pytest.fixture
def prompts(tiny_tokenizer):
    return [tuple(tiny_tokenizer(question).input_ids) for question in QUESTIONS]
