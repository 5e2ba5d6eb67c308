"""Each mutant makes its tests fail. The list is checked always; `pytest -m slow tests/mutations` runs it.

A mutant is tried in a copy of the repository, in a process of its own; its tests must pass there without it, and fail
with it: to find no test, or none that can be imported, is no failure.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from mutants import ROOT, Mutant, read_mutants

MUTANTS = read_mutants()
NEEDED = ("lightrft", "tests", "examples", "docs", "benchmarks", "*.py", "*.md", "pyproject.toml")
PASSED, FAILED = 0, 1  # pytest's exit codes
DEADLINE_S = 600  # far above what one needs: a mutant that hangs is caught too, and this says how

each_mutant = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


@each_mutant
def test_the_list_fits_the_code(mutant: Mutant):
    """The old text occurs once, the new one is another program, and the tests are there."""
    changed, before = ast.parse(mutant.applied()), ast.parse((ROOT / mutant.file).read_text())
    assert ast.dump(changed) != ast.dump(before)
    named = [word for word in mutant.tests if word.startswith("tests/")]
    assert named and all((ROOT / word.partition("::")[0]).exists() for word in named)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    for entry in (entry for pattern in NEEDED for entry in ROOT.glob(pattern)):
        if entry.is_dir():
            shutil.copytree(entry, folder / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(entry, folder)
    return folder


@pytest.mark.slow
@each_mutant
def test_the_tests_notice(mutant: Mutant, copy: Path):
    assert outcome(copy, mutant.tests) == PASSED, "the tests fail without the mutant too"
    place = copy / mutant.file
    whole = place.read_text()
    place.write_text(mutant.applied())
    try:
        assert run(copy, mutant.tests) == FAILED, f"nothing noticed: {mutant.why}"
    finally:
        place.write_text(whole)


@cache
def outcome(folder: Path, tests: tuple[str, ...]) -> int:
    return run(folder, tests)


def run(folder: Path, tests: tuple[str, ...]) -> int:
    command = [sys.executable, "-B", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    try:
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=DEADLINE_S).returncode
    except subprocess.TimeoutExpired:
        return FAILED
