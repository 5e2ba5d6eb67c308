"""The reference document's own commands, the presets, and the page that is made from the flags."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import parsed, refusal

from lightrft.args import check, parse
from lightrft.args.docs import page
from lightrft.args.surface import FLAGS
from lightrft.args.unbuilt import UNBUILT, UNBUILT_CHOICES

ROOT = Path(__file__).parents[3]

MATH = """
    # Model
    --pretrain /path/to/Qwen2.5-7B-Instruct \\
    --reward_pretrain /path/to/reward-model \\
    --max_len 4096 \\
    --prompt_max_len 2048 \\
    \\
    # Training
    --num_episodes 20 \\
    --max_epochs 1 \\
    --actor_learning_rate 5e-7 \\
    --critic_learning_rate 9e-6 \\
    \\
    # Batch Size
    --train_batch_size 128 \\
    --micro_train_batch_size 1 \\
    --rollout_batch_size 64 \\
    --micro_rollout_batch_size 2 \\
    \\
    # Algorithm
    --advantage_estimator group_norm \\
    --n_samples_per_prompt 8 \\
    --kl_estimator k3 \\
    --init_kl_coef 0.001 \\
    --temperature 0.6 \\
    \\
    # Distributed
    --zero_stage 2 \\
    --bf16 \\
    --gradient_checkpointing \\
    \\
    # Engine
    --engine_type vllm \\
    --engine_tp_size 1 \\
    --engine_mem_util 0.85 \\
    --enable_engine_sleep \\
    \\
    # Memory
    --adam_offload \\
    --fused_linear_logprob \\
    \\
    # Logging
    --use_tensorboard ./tb_logs \\
    --plot_every 10 \\
    \\
    # Checkpoint
    --save_path ./checkpoints \\
    --save_interval 1 \\
    --max_ckpt_num 3 \\
    \\
    # Reward
    --reward_running_norm \\
    --advantages_norm
"""
VISION = """
    # Model
    --pretrain /path/to/Qwen2-VL-7B-Instruct \\
    --max_len 4096 \\
    \\
    # Training
    --num_episodes 10 \\
    --actor_learning_rate 1e-6 \\
    \\
    # Batch Size
    --train_batch_size 64 \\
    --micro_train_batch_size 1 \\
    --rollout_batch_size 32 \\
    --micro_rollout_batch_size 1 \\
    \\
    # Algorithm
    --advantage_estimator group_norm \\
    --n_samples_per_prompt 4 \\
    \\
    # Distributed
    --fsdp \\
    --fsdp_cpu_offload \\
    --gradient_checkpointing \\
    \\
    # Engine
    --engine_tp_size 4 \\
    --engine_mem_util 0.6 \\
    \\
    # VLM Specific
    --mixed_mm_data \\
    --packing_samples
"""
OMITTED = "--prompt_data data.jsonl --reward_fn last_number --save_path out --assume_gpus 8x80GB"
NOT_BUILT = re.compile(r"(?:--(?P<flag>\w+)(?: (?P<choice>\w+))? is|training .+ is) not built yet \(\w+\); .+")


def words(example: str) -> list[str]:
    lines = [line for line in example.splitlines() if not line.lstrip().startswith("#")]
    return [word for line in lines for word in shlex.split(line.rstrip("\\"))]


def what_is_left(example: str, program: str) -> set[str]:
    """The flags that a complete example of the document is still refused for; every line must be of the list."""
    argv = [*words(example), *OMITTED.split()]

    def parse_and_check() -> None:
        args = parse(argv, program=program)
        check(args, program=program)

    found = [NOT_BUILT.fullmatch(line) for line in refusal(parse_and_check)]
    assert all(found), refusal(parse_and_check)
    return {match["flag"] or "" for match in found if match} - {""}


@pytest.mark.parametrize("example, program", [(MATH, "text"), (VISION, "vision")], ids=["math", "vision"])
def test_the_complete_examples_pass_every_rule_but_for_what_is_not_built(example: str, program: str):
    typed = [word.removeprefix("--") for word in words(example) if word.startswith("--")]
    choices = {flag for flag, choice in UNBUILT_CHOICES if f"--{flag} {choice}" in " ".join(words(example))}
    assert what_is_left(example, program) == {flag for flag in typed if flag in UNBUILT} | choices
    assert set(typed) <= FLAGS.keys()


@pytest.mark.parametrize(
    "batch",
    [
        "--train_batch_size 128 --micro_train_batch_size 1 --rollout_batch_size 64 --micro_rollout_batch_size 2",
        "--train_batch_size 512 --micro_train_batch_size 2 --rollout_batch_size 256 --micro_rollout_batch_size 8",
    ],
)
def test_its_batch_sizes_pass_on_eight_gpus(batch: str):
    (line,) = refusal(check, parsed(f"{batch} --assume_gpus 8x80GB"))
    assert line.startswith("training on 8 processes is not built yet")


def test_the_page_of_arguments_is_fresh():
    made = subprocess.run([sys.executable, "-m", "lightrft.args.docs"], cwd=ROOT, capture_output=True, check=True)
    assert (ROOT / "docs" / "arguments.md").read_bytes() == made.stdout, "make it anew: its first line says how"


def test_the_page_names_every_flag_and_what_is_refused():
    text = page()
    for flag in FLAGS.values():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `--{flag.name}`")]
        assert flag.record.help in row
        assert (f"*Not built yet ({flag.record.unbuilt}).*" in row) == (flag.name in UNBUILT)
