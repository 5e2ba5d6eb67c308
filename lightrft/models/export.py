"""A trained model as a Hugging Face folder."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def save_hf(
    model: PreTrainedModel, params: Iterable[tuple[str, Tensor]], tokenizer: PreTrainedTokenizerBase, path: Path
) -> None:
    """Weights, config, generation config, tokenizer and chat template into `path`, whose other files stay.

    Everything is written beside and moved in when whole, the config last: a folder with a config has its weights.
    """
    beside = path / ".export.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    state = {name: value.detach().cpu() for name, value in params}
    model.save_pretrained(beside, state_dict=state)
    tokenizer.save_pretrained(beside)
    for entry in sorted(beside.iterdir(), key=lambda e: (e.name == "config.json", e.name)):
        os.replace(entry, path / entry.name)
    beside.rmdir()
