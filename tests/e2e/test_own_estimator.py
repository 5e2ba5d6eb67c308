"""`--advantage_estimator my.py`: a file of one's own, in any folder, with its own defaults, recorded and compared."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from runs import ROOT, files, read_json, rows, train

from lightrft.args import parse

OWN = '''
"""GRPO, with a clip of its own and its loss in a file beside."""

import torch

from beside_my_estimator import loss

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator

HALF = 0.5
ESTIMATOR = Estimator(
    advantage=from_groups("scaled"), policy_loss=loss, aggregation="seq-mean-token-mean", needs={"group"},
    defaults={"clip_range": 0.125, "init_kl_coef": 0.0},
)
'''
BESIDE = """
def loss(*given, **named):
    from late_beside_my_estimator import ppo_loss

    return ppo_loss(*given, **named)
"""
SHORT = "--max_steps 1 --reward_fn shaped.py:length --save_steps 1"


@pytest.fixture
def mine(here: Path) -> Path:
    folder = here / "elsewhere"
    folder.mkdir()
    (folder / "beside_my_estimator.py").write_text(BESIDE)
    (folder / "late_beside_my_estimator.py").write_text("from lightrft.algorithms.losses import ppo_loss\n")
    (folder / "my.py").write_text(OWN)
    return folder / "my.py"


def test_it_trains_as_the_one_that_it_copies_and_is_kept(mine: Path, here: Path):
    ended = train(f"--advantage_estimator elsewhere/my.py --save_path own {SHORT}")
    assert ended.code == 0 and "estimator elsewhere/my.py" in ended.out, ended.err
    train(f"--init_kl_coef 0 --save_path ours {SHORT}")
    assert rows(here / "own") == rows(here / "ours")
    record = read_json(here / "own" / "logs" / "run.json")
    assert record["hashes"]["elsewhere/my.py"] == hashlib.sha256(OWN.encode()).hexdigest()
    assert record["arguments"]["clip_range"] == {"value": 0.125, "source": "default:elsewhere/my.py"}
    mine.write_text(OWN.replace("GRPO", "Mine"))
    resumed = train(f"--advantage_estimator elsewhere/my.py --save_path own {SHORT} --max_steps 2 --load_checkpoint")
    assert resumed.code == 0 and "hash of elsewhere/my.py was" in resumed.out + resumed.err


@pytest.mark.parametrize(
    "old, new, line",
    [
        ("from beside", "from not_beside",
         "importing the file failed: ModuleNotFoundError: No module named 'not_beside_my_estimator' (line 6)"),
        ("HALF =", "HALF = 1 / 0 #", "importing the file failed: ZeroDivisionError: division by zero (line 11)"),
        ("ESTIMATOR = Estimator(", "def Estimator(**_): ...\nESTIMATOR = Estimator(",
         "its ESTIMATOR is NoneType, not lightrft.algorithms.estimator.Estimator"),
        ('{"group"}', '{"groups"}', "elsewhere/my.py:13: needs='groups' is none of 'group', 'critic'; nearest: group"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_it_is_one_line_and_nothing_is_written(
    mine: Path, here: Path, old: str, new: str, line: str
):
    mine.write_text(OWN.replace(old, new))
    before = files(here)
    ended = train(f"--advantage_estimator elsewhere/my.py --save_path own {SHORT}")
    assert ended.code == 2
    assert ended.problems == [f"error: --advantage_estimator elsewhere/my.py: {line}"]
    assert files(here) == before


def test_its_defaults_are_shown_without_importing_it(mine: Path, here: Path):
    code = "import sys; from lightrft.cli import main; main(argv=sys.argv[1:]); sys.exit('torch' in sys.modules)"
    flags = "--pretrain a --prompt_data b --save_path c --rollout_batch_size 4 --train_batch_size 16 --reward_fn exact"
    argv = f"{flags} --advantage_estimator elsewhere/my.py --print_args".split()
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert ["clip_range", "0.125", "default:elsewhere/my.py"] in [line.split() for line in done.stdout.splitlines()]
    assert parse(argv).algorithm.init_kl_coef == 0


FAULTS = """
from dataclasses import replace

from lightrft.algorithms.advantages import from_groups
from lightrft.algorithms.estimator import Estimator, TokenLoss
from lightrft.algorithms.losses import ppo_loss

def advantage(batch, settings, ranks):
    found = from_groups("scaled")(batch, settings, ranks)
    ADVANTAGE
    return found

def loss(logprobs, old_logprobs, advantages, response_mask, args):
    found = ppo_loss(logprobs, old_logprobs, advantages, response_mask, args)
    LOSS
    return found

ESTIMATOR = Estimator(advantage=advantage, policy_loss=loss, aggregation="token-mean", needs={"group"})
"""
TYPED = "lightrft.algorithms.estimator."


@pytest.mark.parametrize(
    "place, code, line",
    [
        ("ADVANTAGE", "ranks.mean(found.advantages)",
         "advantage failed: AttributeError: 'RANKS' object has no attribute 'mean' (my.py:10)"),
        ("ADVANTAGE", "return found.advantages", f"advantage returned Tensor, not {TYPED}Advantages"),
        ("ADVANTAGE", "found = replace(found, valid=found.valid[:, None])",
         "advantage: its valid is [16, 1], not [B] = [16]"),
        ("ADVANTAGE", "found = replace(found, metrics={'a': found.valid})",
         "advantage: its metric a is Tensor, not a number; float(...) makes one of a tensor"),
        ("LOSS", "found = found.loss", f"policy_loss returned Tensor, not {TYPED}TokenLoss"),
        ("LOSS", "ppo_loss(logprobs)", "policy_loss failed: TypeError: ppo_loss() missing 4 required positional "
         "arguments: 'old_logprobs', 'advantages', 'response_mask', and 'args' (my.py:15)"),
        ("LOSS", "return TokenLoss(found.loss[:, :1])", "policy_loss: its loss is [8, 1], not [B, T] = [8, SEEN]"),
        ("LOSS", "return TokenLoss(found.loss.detach())",
         "policy_loss: its loss has no gradient: nothing in it depends on logprobs but through detach() or no_grad()"),
    ],
)  # fmt: skip
def test_a_fault_in_its_functions_is_one_line(here: Path, place: str, code: str, line: str):
    (here / "my.py").write_text(FAULTS.replace(place, code).replace("ADVANTAGE", "pass").replace("LOSS", "pass"))
    ended = train(f"--fsdp --advantage_estimator my.py --save_path own {SHORT}")
    assert ended.code == 1, ended
    (said,) = ended.problems
    said = re.sub(r"'\w+' object has", "'RANKS' object has", re.sub(r"= \[8, \d+\]", "= [8, SEEN]", said))
    assert said == f"error: --advantage_estimator my.py: {line}"


def test_a_fault_of_ours_keeps_its_traceback(here: Path, monkeypatch: pytest.MonkeyPatch):
    from lightrft.algorithms.estimators import group_norm

    def broken(*given):
        raise KeyError("a bug of ours")

    monkeypatch.setattr(group_norm, "ESTIMATOR", replace(group_norm.ESTIMATOR, policy_loss=broken))
    with pytest.raises(KeyError, match="a bug of ours"):
        train(f"--fsdp --save_path ours {SHORT}")
