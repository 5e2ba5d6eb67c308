"""A run whose standard output holds no more than ASCII, in a folder and with prompts that need more."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from runs import words

from lightrft.cli import main


def test_chinese_prompts_and_folders_on_an_ascii_terminal(here: Path, monkeypatch: pytest.MonkeyPatch):
    row = {"prompt": "你好 4+4=", "label": "8"}
    (here / "你好.jsonl").write_text(f"{json.dumps(row, ensure_ascii=False)}\n" * 4, encoding="utf-8")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    flags = "--prompt_data 你好.jsonl --max_steps 1 --plot_every 1 --save_path 结果 --save_trajectories"
    assert main(argv=words(f"{flags} --dry_run")) == 0
    assert main(argv=words(flags)) == 0
    said = stream.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert r"first prompt \u4f60\u597d.jsonl:1" in said and r"model in \u7ed3\u679c" in said
    assert (here / "结果" / "model.safetensors").is_file()
