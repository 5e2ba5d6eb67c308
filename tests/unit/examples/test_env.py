"""Sourcing examples/env.sh gives a shell the environment, and leaves the rest of it alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHOW = 'echo "$PWD|$VIRTUAL_ENV|$(command -v python)|${HF_HUB_OFFLINE-unset}|$(declare -F | wc -l)|$(fresh_folder x)"'


@pytest.fixture
def checkout(tmp_path):
    """A checkout whose `.venv` is there, with a python that accepts everything."""
    root = tmp_path / "check out"
    (root / "examples").mkdir(parents=True)
    shutil.copy(ROOT / "examples/env.sh", root / "examples")
    for name in ("setup.py", "pyproject.toml"):
        (root / name).write_text("")
    python = root / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho "$@" >> "$(dirname "$0")/calls"\n')
    python.chmod(0o755)
    return root


def source(root, folder, *, then=SHOW, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    command = ["bash", "-c", f'. "{root}/examples/env.sh" && {then}']
    return subprocess.run(command, cwd=folder, env=kept | environment, capture_output=True, text=True, timeout=60)


def test_it_stays_in_the_users_folder_and_lets_models_be_fetched(checkout, tmp_path):
    done = source(checkout, tmp_path)
    shown = done.stdout.splitlines()[-1].split("|")
    venv = checkout / ".venv"
    assert shown == [str(tmp_path), str(venv), str(venv / "bin/python"), "unset", "1", "x"], done.stderr
    assert f"--editable {checkout}[examples,test]" in (venv / "bin/calls").read_text()
    assert source(checkout, tmp_path, HF_HUB_OFFLINE="1").stdout.splitlines()[-1].split("|")[3] == "1"


def test_a_complete_environment_is_not_installed_again(checkout, tmp_path):
    source(checkout, tmp_path)
    (checkout / ".venv/bin/calls").unlink()
    assert source(checkout, checkout / "examples").returncode == 0
    assert not (checkout / ".venv/bin/calls").exists()
    (checkout / "setup.py").write_text("changed")
    assert "env: installing lightrft" in source(checkout, tmp_path).stdout


def test_an_environment_that_is_named_is_used_as_it_is(checkout, tmp_path):
    other = tmp_path / "other"
    (checkout / ".venv").rename(other)
    shown = source(checkout, tmp_path, LIGHTRFT_ENVIRONMENT=str(other)).stdout.splitlines()[-1].split("|")
    assert shown[1:3] == [str(other), str(other / "bin/python")]
    assert not (other / "bin/calls").exists() and not (checkout / ".venv").exists()
    missing = source(checkout, tmp_path, LIGHTRFT_ENVIRONMENT="nowhere")
    assert missing.returncode == 1 and "LIGHTRFT_ENVIRONMENT=nowhere has no bin/python" in missing.stderr
