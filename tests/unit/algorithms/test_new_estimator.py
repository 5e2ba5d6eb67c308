"""CONTRIBUTING.md says that an estimator is one file: its example is taken from the page and put beside the others."""

from __future__ import annotations

import importlib
import math
import re
import shutil
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightrft.algorithms import estimators, over_ranks
from lightrft.algorithms.estimator import Advantages, AdvantageSettings, load_estimator
from lightrft.algorithms.functional import Counts, aggregate
from lightrft.args import parse
from lightrft.args.estimators import FIELDS
from lightrft.batch import Batch
from lightrft.cli import main
from lightrft.ranks.base import ONE_RANK

PAGE = Path(__file__).parents[3] / "CONTRIBUTING.md"
PLACE = "lightrft/algorithms/estimators/cispo.py"
NEEDED = "--pretrain model --prompt_data train.jsonl --reward_fn last_number --save_path out"
BATCH = "--rollout_batch_size 2 --n_samples_per_prompt 4 --train_batch_size 4 --prompt_max_len 8 --max_new_tokens 4"
FLAGS = f"{NEEDED} {BATCH} --advantage_estimator cispo".split()


@pytest.fixture
def cispo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The page's block in a folder with copies of all other estimators, which stands in for the real one."""
    found = re.findall(rf"^```python {re.escape(PLACE)}\n(.*?)^```$", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert len(found) == 1
    folder = Path(shutil.copytree(str(Path(estimators.__file__).parent), tmp_path / "estimators"))
    (folder / "cispo.py").write_text(found[0])
    monkeypatch.setattr("lightrft.args.estimators.FOLDER", folder)
    monkeypatch.setattr(estimators, "__path__", [str(folder)])
    importlib.invalidate_caches()
    yield load_estimator("cispo")
    del sys.modules[f"{estimators.__name__}.cispo"]
    del estimators.cispo  # pyright: ignore[reportAttributeAccessIssue]


def test_its_gradient_by_hand(cispo):
    """Two responses of 3 and 1 tokens; the weights are r, cut to [0.8, 1.3]; token-mean over four tokens."""
    ratios = torch.tensor([[1.1, 2.0, 0.5], [1.0, 9.0, 9.0]], dtype=torch.float64)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    logprobs = torch.full((2, 3), math.log(0.25), dtype=torch.float64, requires_grad=True)
    old = logprobs.detach() - ratios.log()
    advantages = torch.tensor([[2.0], [-1.0]]).expand(2, 3)
    args = SimpleNamespace(clip_range=0.2, clip_range_higher=0.3)
    found = cispo.policy_loss(logprobs, old, advantages, mask, args)
    counts = Counts(tokens=4, sequences=2, rows=2, groups=1, max_new_tokens=4)
    aggregate(found.loss, mask, cispo.aggregation, counts).backward()
    wanted = [[-1.1 * 2 / 4, -1.3 * 2 / 4, -0.8 * 2 / 4], [1.0 / 4, 0.0, 0.0]]
    assert torch.allclose(logprobs.grad, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=0)
    assert found.metrics["policy/clip_frac"].tolist() == [[0, 1, 1], [0, 0, 0]]
    loss = math.log(4) * torch.tensor([[2.2, 2.6, 1.6], [-1.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.allclose(found.loss, loss, rtol=1e-12, atol=0)


def test_its_advantages_by_hand(cispo):
    rewards, group = torch.tensor([1.0, 0.0, 0.0, 1.0], dtype=torch.float64), torch.tensor([0, 0, 1, 1])
    index = SimpleNamespace(rewards=rewards.numpy(), group=group.numpy(), own=np.arange(4))
    batch = SimpleNamespace(rewards=rewards, group=group, response_mask=torch.tensor([[1], [1], [1], [0]]), index=index)
    found = cispo.advantage(batch, AdvantageSettings(), ONE_RANK).advantages[:, 0].tolist()
    assert found == pytest.approx([0.5**0.5, -(0.5**0.5), -(0.5**0.5), 0.0], abs=1e-5)


def test_the_file_makes_it_a_choice_with_its_own_defaults(cispo):
    args = parse(FLAGS, world_size=1)
    assert args.algorithm.advantage_estimator == "cispo"
    assert (args.algorithm.clip_range, str(args.sources["clip_range"])) == (0.99, "default:cispo")


def test_it_trains(cispo, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "model").symlink_to(tiny_folder / "model")
    (tmp_path / "train.jsonl").symlink_to(tiny_folder / "train.jsonl")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lightrft.trainer.StopRequest.listen", lambda self: None)  # signals stay pytest's
    assert main(argv=[*FLAGS, "--max_steps", "2", "--fsdp", "--quiet", "--plot_every", "0"]) == 0
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_page_lists_the_fields_that_a_file_may_have():
    table = PAGE.read_text().partition("| field | what |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == sorted(FIELDS)


def test_what_the_page_says_of_a_batch_and_its_advantages_exists():
    text = PAGE.read_text()
    for start, kind in (
        ("| `batch: Batch`", Batch),
        ("| `settings:", AdvantageSettings),
        ("| `Advantages`", Advantages),
    ):
        (row,) = [line for line in text.splitlines() if line.startswith(start)]
        named = set(re.findall(r"`([a-z_]{4,})`", row.partition("|")[2].partition(" | ")[2]))
        assert named and named <= {entry.name for entry in fields(kind)}, row
    (row,) = [line for line in text.splitlines() if line.startswith("| `ranks: Ranks`")]
    assert all(hasattr(over_ranks, name) for name in ("ONE_RANK", *re.findall(r"`(total|mean|share|moments)`", row)))
