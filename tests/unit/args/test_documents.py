"""The reference document's own commands, the presets, and the page that is made from the flags."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command_lines import parsed, refusal

from lightrft.args import check, combinations, parse
from lightrft.args.command_line import build_parser
from lightrft.args.docs import page
from lightrft.args.estimators import declared, estimator_names
from lightrft.args.surface import FLAGS
from lightrft.args.unbuilt import UNBUILT

ROOT = Path(__file__).parents[3]
REAL = ROOT / "lightrft" / "algorithms" / "estimators"

MATH = """
    --pretrain /path/to/Qwen2.5-7B-Instruct --reward_pretrain /path/to/reward-model --max_len 4096 --prompt_max_len 2048
    --num_episodes 20 --max_epochs 1 --actor_learning_rate 5e-7 --critic_learning_rate 9e-6
    --train_batch_size 128 --micro_train_batch_size 1 --rollout_batch_size 64 --micro_rollout_batch_size 2
    --advantage_estimator group_norm --n_samples_per_prompt 8 --kl_estimator k3 --init_kl_coef 0.001 --temperature 0.6
    --zero_stage 2 --bf16 --gradient_checkpointing
    --engine_type vllm --engine_tp_size 1 --engine_mem_util 0.85 --enable_engine_sleep
    --adam_offload --fused_linear_logprob
    --use_tensorboard ./tb_logs --plot_every 10
    --save_path ./checkpoints --save_interval 1 --max_ckpt_num 3
    --reward_running_norm --advantages_norm
"""
VISION = """
    --pretrain /path/to/Qwen2-VL-7B-Instruct --max_len 4096
    --num_episodes 10 --actor_learning_rate 1e-6
    --train_batch_size 64 --micro_train_batch_size 1 --rollout_batch_size 32 --micro_rollout_batch_size 1
    --advantage_estimator group_norm --n_samples_per_prompt 4
    --fsdp --fsdp_cpu_offload --gradient_checkpointing
    --engine_tp_size 4 --engine_mem_util 0.6
    --mixed_mm_data --packing_samples
"""
OMITTED = "--prompt_data data.jsonl --reward_fn last_number --save_path out --assume_gpus 8x80GB"
NOT_BUILT = re.compile(r"(?:--(?P<flag>\w+)(?: (?P<choice>\w+))? is|training .+ is) not built yet \(\w+\); .+")


def words(example: str) -> list[str]:
    return shlex.split(example)


def what_is_left(example: str) -> set[str]:
    """The flags that a complete example of the document is still refused for; every line must be of the list."""
    argv = [*words(example), *OMITTED.split()]

    def parse_and_check() -> None:
        check(parse(argv))

    if not any(word.removeprefix("--") in UNBUILT for word in argv):
        parse_and_check()
        return set()
    found = [NOT_BUILT.fullmatch(line) for line in refusal(parse_and_check)]
    assert all(found), refusal(parse_and_check)
    return {match["flag"] or "" for match in found if match} - {""}


@pytest.mark.parametrize("example", [MATH, VISION], ids=["math", "vision"])
def test_the_complete_examples_pass_every_rule_but_for_what_is_not_built(example: str):
    typed = [word.removeprefix("--") for word in words(example) if word.startswith("--")]
    assert what_is_left(example) == {flag for flag in typed if flag in UNBUILT}
    assert set(typed) <= FLAGS.keys()


@pytest.mark.parametrize(
    "batch",
    [
        "--train_batch_size 128 --micro_train_batch_size 1 --rollout_batch_size 64 --micro_rollout_batch_size 2",
        "--train_batch_size 512 --micro_train_batch_size 2 --rollout_batch_size 256 --micro_rollout_batch_size 8",
    ],
)
def test_its_batch_sizes_pass_on_eight_gpus(batch: str):
    check(parsed(f"{batch} --assume_gpus 8x80GB"))


def test_the_page_of_arguments_is_fresh():
    made = subprocess.run([sys.executable, "-m", "lightrft.args.docs"], cwd=ROOT, capture_output=True, check=True)
    assert (ROOT / "docs" / "arguments.md").read_bytes() == made.stdout, "make it anew: its first line says how"


def test_the_page_of_combinations_is_fresh():
    text = (ROOT / "docs" / "combinations.md").read_text(encoding="utf-8")
    assert text == combinations.page(), "make it anew: its third line says how"


def test_the_page_names_every_flag_and_what_is_refused():
    text = page()
    for flag in FLAGS.values():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `--{flag.name}`")]
        assert flag.record.help in row
        assert (f"*Not built yet ({flag.record.unbuilt}).*" in row) == (flag.name in UNBUILT)


PRECEDENCE = ["Command line", "YAML (--config)", "preset of --mode", "the estimator's defaults", "those shown here."]
IN_WORDS = {"command line": 0, "--config files (a later file wins)": 1, "preset of --mode": 2}


def rows_of(page: str, *flags: str) -> list[str]:
    """The second cells of a page's table rows that begin with these flags."""
    start = f"| {', '.join(f'`--{flag}`' for flag in flags)} | "
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return [
        line.removeprefix(start).split(" | ")[0].removesuffix(" |")
        for line in text.splitlines()
        if line.startswith(start)
    ]


def test_pages_and_help_agree_on_which_source_wins():
    assert build_parser().epilog.split(" > ") == PRECEDENCE
    (line,) = [
        line
        for line in (ROOT / "docs/configuration.md").read_text().splitlines()
        if line.startswith("    command line")
    ]
    told = [part.strip() for part in line.split("  >  ")]
    assert [IN_WORDS.get(part, part) for part in told] == [0, 1, 2, "the estimator's defaults", "defaults"]


@pytest.mark.parametrize("flag", ["source_key", "input_key"])
def test_pages_and_help_agree_on_the_columns(flag: str):
    record = FLAGS[flag].record
    (cell,) = rows_of("data.md", flag)
    assert cell.replace("`", "") == (record.unset or record.default)


def test_the_page_of_algorithms_has_the_estimators_defaults():
    text = (ROOT / "docs/algorithms.md").read_text(encoding="utf-8")
    for name in estimator_names(REAL):
        section = re.search(rf"^## {name}\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
        assert section, name
        own = declared(name, REAL).defaults
        found = re.search(r"`--clip_range`, `--clip_range_higher` \| ([\d.e-]+), ([\d.e-]+)", section[1])
        if found:
            clips = [own.get(flag, FLAGS[flag].record.default) for flag in ("clip_range", "clip_range_higher")]
            assert [float(found[1]), float(found[2])] == clips, name
        reduced = re.search(r"`--loss_agg_mode` \| `([\w-]+)`", section[1])
        assert reduced is None or reduced[1] == declared(name, REAL).aggregation, name
        place = re.search(r"`--kl_estimator`, `--init_kl_coef` \| (k\d) in the (\w+)", section[1])
        if place:
            assert place.groups() == {"loss": ("k3", "loss"), "reward": ("k1", "reward")}[declared(name, REAL).kl], name
