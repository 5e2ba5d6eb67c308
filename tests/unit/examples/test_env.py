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


def test_a_plan_installs_nothing(checkout, tmp_path):
    """The Python that is there is used, if it has what is needed."""
    shutil.rmtree(checkout / ".venv")
    there = tmp_path / "there/bin"
    there.mkdir(parents=True)
    (there / "python").write_text(f'#!/bin/sh\ncase "$2" in *find_spec*) exit $LACKS ;; esac\necho {there.parent}\n')
    (there / "python").chmod(0o755)
    asked = {"LIGHTRFT_INSTALL": "no", "PATH": f"{there}:{os.environ['PATH']}"}
    shown = source(checkout, tmp_path, LACKS="0", **asked).stdout.splitlines()[-1].split("|")
    assert shown[1:3] == [str(there.parent), str(there / "python")]
    missing = source(checkout, tmp_path, LACKS="1", **asked)
    assert missing.returncode == 1 and "the Python on PATH lacks what lightrft needs" in missing.stderr
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("recipe", ["vision/qwen2_5_vl_7b.sh", "volumes/volumes.sh"])
def test_recipes_for_large_models_install_nothing_for_a_plan(checkout, tmp_path, recipe):
    shutil.copytree(ROOT / "examples", checkout / "examples", dirs_exist_ok=True)
    (checkout / "examples/env.sh").write_text('echo "${LIGHTRFT_INSTALL:-}"; exit 0')
    command = ["bash", str(checkout / "examples" / recipe)]
    kept = {name: value for name, value in os.environ.items() if name != "LIGHTRFT_INSTALL"}
    for flags, said in ((["--dry_run"], "no"), (["--assume_gpus=8x80GB"], "no"), ([], "")):
        done = subprocess.run([*command, *flags], cwd=tmp_path, env=kept, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == said
