"""The recipes of examples/recipes: each passes `--dry_run` as it stands, and with its lines for a model of 7B."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from children import environment
from runs import ROOT, call

from lightrft.args import Args, parse
from lightrft.args.rules import findings

RECIPES = sorted(path.stem for path in (ROOT / "examples/recipes").glob("*.sh"))
ALGORITHMS = {"reinforce++": "reinforce", "ppo": "gae", "grpo": "group_norm", "dapo": "group_norm"}
SEVEN_B = re.compile(r"^( *).*# 7B: *(.*)$", flags=re.MULTILINE)
DEADLINE_S = 120
# What env.sh makes, without its installing: a python and a torchrun that say what they were given.
ENVIRONMENT = """
LIGHTRFT_ROOT=.
fresh_folder() { echo "$1"; }
python() { printf '%s\\n' "$@"; }
torchrun() { printf '%s\\n' "$@"; }
"""


@pytest.fixture
def checkout(tiny_folder: Path, tmp_path: Path) -> Path:
    """The recipes, beside an env.sh that installs nothing; the model that they would make is there."""
    shutil.copytree(ROOT / "examples/recipes", tmp_path / "examples/recipes")
    (tmp_path / "examples/env.sh").write_text(ENVIRONMENT)
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs/tiny_start").symlink_to(tiny_folder)
    return tmp_path


def given(recipe: str, folder: Path, *words: str) -> list[str]:
    """The words that the recipe gives to python or torchrun."""
    command = ["bash", f"examples/recipes/{recipe}.sh", *words]
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_there_is_one_for_each_of_the_well_known():
    assert RECIPES == ["cpgd", "dapo", "dr_grpo", "gmpo", "grpo", "gspo", "ppo", "reinforce++"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_it_passes_a_dry_run(checkout: Path, recipe: str, monkeypatch: pytest.MonkeyPatch):
    """In this process, which saves the seconds in which another one imports torch."""
    monkeypatch.chdir(checkout)
    program, *words = given(recipe, checkout, "--dry_run")
    ended = call(words)
    assert (program, ended.code) == ("train.py", 0), ended.err
    assert f"estimator {ALGORITHMS.get(recipe, recipe)}\n" in ended.out
    assert [path.name for path in (checkout / "outputs").iterdir()] == ["tiny_start"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_its_lines_for_a_large_model_fit_together_on_eight_processes(checkout: Path, recipe: str):
    path = checkout / "examples/recipes" / f"{recipe}.sh"
    path.write_text(SEVEN_B.sub(r"\1\2", path.read_text()))
    args = as_read(given(recipe, checkout))
    assert args.batch.rollout_batch_size * args.algorithm.n_samples_per_prompt == 4 * args.batch.train_batch_size
    assert (args.model.pretrain, args.model.max_new_tokens) == ("Qwen/Qwen2.5-7B-Instruct", 3072)
    assert args.distributed.bf16 and args.algorithm.advantage_estimator == ALGORITHMS.get(recipe, recipe)


def as_read(words: list[str]) -> Args:
    """The flags, after every rule has passed and none of them is idle."""
    assert words[:3] == ["--nproc_per_node", "8", "train.py"]
    args = parse(words[3:], world_size=8)
    said = [str(finding) for finding in findings(args, 8)]
    said = [line for line in said if not line.startswith("training on 8 processes is not built yet")]
    assert len(said) == 1 and "trained on in 4 optimizer steps" in said[0], said
    return args
