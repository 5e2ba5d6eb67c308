"""A command can make rollouts without a trainer: from the same flags they are those of a training's first step."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

from runs import ROOT, words

from lightrft.args import parse
from lightrft.build.trainer import build_trainer
from lightrft.preflight import check_inputs
from lightrft.ranks.launch import leave_world

FLAGS = "--save_path run --seed 7 --temperature 1.3 --top_p 0.9 --max_eval_samples 9 --max_steps 3 --quiet"
ALONE = """
import pickle, sys
import torch
from lightrft.args import parse
from lightrft.build.rollouts import load_rollouts
from lightrft.preflight import check_inputs
from lightrft.rollouts.engines.local import LocalEngine

closed = []
LocalEngine.close = lambda self: closed.append(self)
args = parse(sys.argv[1:])
with load_rollouts(args, check_inputs(args), torch.device("cpu")) as made:
    found = made.collector.collect(made.prompts, 1), made.evaluator.evaluate()
    assert not closed
assert closed == [made.collector.maker.engine], "once"
try:
    with load_rollouts(args, check_inputs(args), torch.device("cpu")) as made:
        raise KeyboardInterrupt
except KeyboardInterrupt:
    assert len(closed) == 2, "also where the command fails"
names = ("deepspeed", "lightrft.trainer", "lightrft.update.step", "lightrft.strategy.")
loaded = [name for name in sys.modules if name.startswith(names) and name != "lightrft.strategy.base"]
torch_distributed = torch.distributed.is_initialized()
sys.stdout.buffer.write(pickle.dumps((*found, loaded, torch_distributed)))
"""


def alone(here: Path):
    """Rollouts and an evaluation from a fresh process, and what else it loaded."""
    flags = words(f"{FLAGS} --fsdp")
    command, environment = [sys.executable, "-c", ALONE, *flags], {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return pickle.loads(done.stdout)


def trained(flags: str):
    """What the first step of that training makes, and its evaluation before."""
    args = parse(words(flags))
    trainer = build_trainer(args, check_inputs(args))
    try:
        assert trainer.evaluations.evaluator is not None
        trainer.placement.generate(0)
        return trainer.collector.collect(trainer.prompts, 1), trainer.evaluations.evaluator.evaluate()
    finally:
        trainer.close()
        leave_world()


def test_rollouts_need_no_trainer_and_are_those_of_its_first_step(here):
    rollouts, evaluated, loaded, joined = alone(here)
    assert loaded == [] and not joined, "no optimizer, no strategy and no process group"
    assert len(rollouts) == 16 and len({rollout.response for rollout in rollouts}) > 4
    assert {rollout.reward.total for rollout in rollouts} == {0.0, 1.0} and evaluated.n == 9
    for strategy in ("--fsdp", "--zero_stage 2"):
        of_training, evaluated_in_training = trained(f"{FLAGS} {strategy} --save_path {strategy.strip('-')[:4]}")
        assert of_training == rollouts, "tokens, log-probabilities, texts and rewards"
        assert evaluated_in_training == evaluated
