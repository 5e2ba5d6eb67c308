"""A virtual environment with TRL, for `vs_trl.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
TORCH, TRL = "torch==2.13.0", "trl==1.16.*"


def trl_environment() -> str:
    """Python of benchmarks/.venv-trl, which is made, or completed, when TRL is not in it."""
    folder, index = HERE / ".venv-trl", os.environ.get("LIGHTRFT_TORCH_INDEX")
    python = str(folder / "bin" / "python")
    probe = [python, "-c", "from importlib.metadata import version; version('trl')"]
    if Path(python).exists() and subprocess.run(probe, capture_output=True).returncode == 0:
        return python
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = [
        [sys.executable, "-m", "venv", str(folder)],
        [*install, TORCH, *(["--index-url", index] if index else [])],
        [*install, TRL, f"transformers=={version('transformers')}"],
    ]
    for command in commands:
        print("making TRL's environment:", " ".join(command[1:]), flush=True)
        subprocess.run(command, check=True)
    return python
