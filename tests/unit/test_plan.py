"""What is planned for this machine and for GPUs that are only assumed."""

from __future__ import annotations

from pathlib import Path

from lightrft.args import Args, parse
from lightrft.models.load import count_parameters
from lightrft.recipe import total_steps

BASE = "--pretrain tiny --prompt_data a.jsonl --reward_fn exact --save_path out "
BASE += "--rollout_batch_size 4 --train_batch_size 16"


def args(text: str = "") -> Args:
    return parse(f"{BASE} {text}".split())


def test_steps_of_episodes():
    assert total_steps(args("--num_episodes 2"), 10) == 5
    assert total_steps(args(), 9) == 3
    assert total_steps(args("--max_steps 7 --num_episodes 2"), 10) == 7
    assert total_steps(args("--train_batch_size 32"), 10) == 2
    # of 8 prompts a step one batch of 4 is drawn at most: three batches, and not two, may be needed
    assert total_steps(args("--train_batch_size 32 --dynamic_sampling --max_gen_batches 1"), 10) == 3


def test_parameters_are_counted_from_the_configuration_alone(tiny_folder: Path, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    (tmp_path / "config.json").write_bytes((tiny_folder / "model" / "config.json").read_bytes())
    real = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(tiny_folder / "model").parameters())
    assert count_parameters(args(f"--pretrain {tmp_path}").model) == real > 300_000
