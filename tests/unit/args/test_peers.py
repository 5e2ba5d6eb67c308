"""Names of TRL, verl and OpenRLHF: the table itself, what is said of each, and the page that is made from it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from command_lines import BASE, parsed, refusal, refused

from lightrft.args import parse
from lightrft.args.convert import from_words
from lightrft.args.names import VALUES, about_unknown
from lightrft.args.peers import PEERS, peer_of
from lightrft.args.surface import FLAGS, GROUPS, NAMES

ROOT = Path(__file__).parents[3]
REAL = [path.stem for path in (ROOT / "lightrft" / "algorithms" / "estimators").glob("[a-z]*.py")]


def test_there_are_the_usual_names_of_each_and_none_twice():
    count = Counter(row.trainer for row in PEERS)
    assert count["TRL"] > 100 and count["verl"] > 100 and count["OpenRLHF"] > 60
    assert max(Counter(row.name.lower() for row in PEERS).values()) == 1


def test_every_row_leads_to_flags_that_exist():
    for row in PEERS:
        assert row.ours or row.note
        assert not row.ours or row.flag in NAMES
        named = re.findall(r"--(?:no-)?(\w+)", row.note)
        assert set(named) - {"nnodes", "nproc_per_node"} <= NAMES.keys(), row  # torchrun's own
        if row.value:
            assert legal(row.flag, row.value), row


def legal(flag: str, word: str) -> bool:
    if flag == "advantage_estimator":
        return word in REAL
    value = from_words(FLAGS[NAMES[flag]].kind, word.split())
    return FLAGS[NAMES[flag]].record.violation(value) is None


def test_each_is_answered_with_its_row():
    for row in PEERS:
        name, _, value = row.name.partition("=")
        assert peer_of(name, value or None) == row


def test_each_is_refused_in_a_line_of_its_own():
    flags = [row for row in PEERS if row.name.partition("=")[0] not in NAMES and "." not in row.name]
    dotted = [row for row in PEERS if "." in row.name]
    words = [f"--{row.name}" for row in flags]
    words += [row.name if "=" in row.name else f"{row.name}=7" for row in dotted]
    lines = refusal(parse, [*words, *BASE.split()])
    assert len(lines) == len(flags) + len(dotted)
    for row, line in zip([*dotted, *flags], lines, strict=True):
        assert row.name.partition("=")[0] in line and (row.flag or row.note) in line, row


@pytest.mark.parametrize(
    "text, line",
    [
        ("--beta 0.04", "--beta is not a flag; use --init_kl_coef (the default is 0 in TRL, 0.001 here)"),
        ("--learning-rate 1e-6", "--learning-rate is not a flag; use --actor_learning_rate"),
        (
            "--gradient_accumulation_steps 4",
            "--gradient_accumulation_steps is not a flag; --train_batch_size counts all samples of an optimizer step, "
            "and --micro_train_batch_size cuts it into passes",
        ),
        ("--report_to wandb", "--report_to is not a flag; use --use_wandb (a project's name has to follow)"),
        ("--save_total_limit=2", "--save_total_limit is not a flag; use --max_ckpt_num"),
        ("--scale_rewards False", "--scale_rewards is not a flag; use --advantage_estimator dr_grpo"),
        ("--use_vllm", "--use_vllm is not a flag; use --engine_type vllm"),
        ("--loss_type dapo", "--loss_type is not a flag; use --loss_agg_mode token-mean"),
        ("--loss_type other", "--loss_type is not a flag; use --loss_agg_mode"),
        ("--flash_attn", "--flash_attn is not a flag; use --attn_implementation flash_attention_2"),
        (
            "--vllm_num_engines 2",
            "--vllm_num_engines is not a flag; engines follow from the processes: one for every --engine_tp_size of "
            "them; --engine_type vllm chooses vLLM",
        ),
        (
            "--ppo_mini_batch_size 64",
            "--ppo_mini_batch_size is not a flag; use --train_batch_size (prompts in verl, samples here: times "
            "--n_samples_per_prompt)",
        ),
        (
            "--advantage_estimator ppo",
            "--advantage_estimator ppo is not one of its choices; use --advantage_estimator gae (PPO with a critic; "
            "the clipped loss is every estimator's)",
        ),
        (
            "--advantage_estimator dapo",
            "--advantage_estimator dapo is not one of its choices; use --advantage_estimator group_norm (with "
            "--loss_agg_mode token-mean --clip_range_higher 0.28 --dynamic_sampling --overlong_buffer "
            "--init_kl_coef 0)",
        ),
        ("--lr_scheduler constant_with_warmup", "--lr_scheduler constant_with_warmup is not one of its choices; use "
         "--lr_scheduler constant (every schedule has the warm-up of --lr_warmup_ratio)"),
        ("--eval_steps -1",
         "--eval_steps -1 is out of bounds; leave it out: evaluation is then before and after training alone"),
        ("--max_steps -1", "--max_steps -1 is out of bounds; leave it out: --num_episodes decides then"),
        ("--no-scale_rewards", "--no-scale_rewards is not a flag; use --advantage_estimator dr_grpo"),
        ("--no-push_to_hub", "--no-push_to_hub is not a flag; nothing is uploaded"),
        ("--gpus 8",
         "--gpus is not a flag; torchrun --nproc_per_node starts the processes"),
        ("--sampling_temperature 1", "--sampling_temperature is not a flag; nearest: --temperature"),
        ("--mirco_train_batch_size 1", "--mirco_train_batch_size is not a flag; nearest: --micro_train_batch_size"),
        ("--temp 1", "--temp is not a flag; use --temperature"),
        ("--temperat 1", "--temperat is not a flag; nearest: --temperature or --temperature_final or "
         "--temperature_schedule"),
        ("--overlong 1", "--overlong is not a flag; nearest: --overlong_buffer or --overlong_filter or "
         "--overlong_buffer_len"),
        ("--lr 1", "--lr is not a flag; use --actor_learning_rate"),
        ("--rollout_size 1", "--rollout_size is not a flag; nearest: --rollout_batch_size"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_name(text: str, line: str):
    assert refused(text) == [line]


@pytest.mark.parametrize(
    "word, advice",
    [
        ("actor_rollout_ref.rollout.name=sglang", "use --engine_type sglang"),
        ("actor_rollout_ref.model.lora_rank=8", "use --lora_rank 8"),
        ("data.val_batch_size=null", "leave --eval_batch_size out"),
        ("rollout.name=hf", "use --engine_type local"),
        ("algorithm.filter_groups.enable=True", "use --dynamic_sampling"),
        ("filter_groups.enable=False", "use --no-dynamic_sampling"),
        ("reward_model.overlong_buffer.enable=True", "use --overlong_buffer"),
        ("overlong_buffer.len=4096", "use --overlong_buffer_len 4096"),
        ("+reward_model.reward_kwargs.overlong_buffer_cfg.penalty_factor=3",
         "use --overlong_buffer_penalty_factor 3"),
        ("custom_reward_function.path=my.py", "use --reward_fn my.py (file.py:function in one)"),
        ("reward.custom_reward_function.name=f", "use --reward_fn f (file.py:function in one)"),
        ("actor_rollout_ref.actor.ppo_mini_batch_size=64",
         "use --train_batch_size 64 (prompts in verl, samples here: times --n_samples_per_prompt)"),
        ("algorithm.adv_estimator=grpo", "use --advantage_estimator group_norm"),
        ("algorithm.adv_estimator=gae", "use --advantage_estimator gae"),
        ("actor_rollout_ref.actor.kl_loss_type=low_var_kl", "use --kl_estimator k3"),
        ("critic.optim.lr=1e-5", "use --critic_learning_rate 1e-5"),
        ("worker.actor.optim.lr=1e-6", "use --actor_learning_rate 1e-6"),
        ("worker.actor.global_batch_size=8", "use --train_batch_size 8 (prompts in EasyR1, samples here: times "
         "--n_samples_per_prompt)"),
        ("trainer.n_gpus_per_node=8", "torchrun --nproc_per_node starts the processes"),
        ("args.max_steps=3", "use --max_steps 3 (optimizer steps in TRL, turns of the loop here)"),
        ("grpo.num_generations=8", "use --n_samples_per_prompt 8"),
        ("trainer.seed=1", "use --seed 1"),
    ],
)  # fmt: skip
def test_what_is_said_of_a_dotted_name(word: str, advice: str):
    assert refused(word) == [f"{word}: {advice}"]


def test_other_words_for_our_choices(tmp_path: Path):
    assert VALUES["advantage_estimator", "grpo"] == "group_norm" and VALUES["kl_estimator", "low_var_kl"] == "k3"
    assert parsed("--optimizer adamw_torch --kl_estimator mse").algorithm.kl_estimator == "k2"
    assert ("advantage_estimator", "ppo") not in VALUES


def test_settings_of_others_in_yaml(tmp_path: Path):
    """Nested as in verl's own file, and under a group of ours that has the name of theirs."""
    (tmp_path / "run.yaml").write_text(
        "actor_rollout_ref:\n  actor:\n    ppo_mini_batch_size: 64\n    optim: {lr: 1e-6}\n  odd: {}\n"
        "algorithm:\n  adv_estimator: grpo\n  kl_ctrl:\n    kl_coef: 0.1\nnum_generations: 8\nloss_type: dapo\n"
    )
    lines = refusal(parse, [*BASE.split(), "--config", f"{tmp_path}/run.yaml"])
    assert [line.replace(f"{tmp_path}/run.yaml:", "") for line in lines] == [
        "3: actor_rollout_ref.actor.ppo_mini_batch_size is not a flag; use train_batch_size (prompts in verl, samples "
        "here: times --n_samples_per_prompt)",
        "4: actor_rollout_ref.actor.optim.lr is not a flag; use actor_learning_rate",
        "5: actor_rollout_ref.odd is not a flag; --help lists them all",
        "7: adv_estimator is not a flag; use advantage_estimator: group_norm",
        "9: kl_ctrl.kl_coef is not a flag; use init_kl_coef",
        "10: num_generations is not a flag; use n_samples_per_prompt",
        "11: loss_type is not a flag; use loss_agg_mode: token-mean",
    ]
    (tmp_path / "run.yaml").write_text("odd: &odd\n  inner: *odd\n")
    assert len(refusal(parse, [*BASE.split(), "--config", f"{tmp_path}/run.yaml"])) == 1


def test_a_switch_in_yaml_and_a_name_that_is_odd():
    assert (
        about_unknown("filter_groups.enable", "", "True") == "filter_groups.enable is not a flag; use dynamic_sampling"
    )
    assert about_unknown("a\nb") == r"--'a\nb' is not a flag; --help lists them all"


@pytest.mark.parametrize(
    "text, line",
    [
        ("[0.5, 1]", "takes name=number, as in exact=0.5 or, in YAML, {exact: 0.5}, got '0.5'"),
        ("0.5", "takes name=number, as in exact=0.5 or, in YAML, {exact: 0.5}, got '0.5'"),
        ("[[exact, 1]]", "takes a mapping of names to numbers, {exact: 1.0}, or a list of name=number"),
        ("[exact]", "takes name=number, got 'exact'"),
    ],
)
def test_weights_as_others_write_them(text: str, line: str, tmp_path: Path):
    (tmp_path / "run.yaml").write_text(f"reward_weights: {text}\n")
    (got,) = refusal(parse, [*BASE.split(), "--config", f"{tmp_path}/run.yaml"])
    assert got == f"{tmp_path}/run.yaml:1: reward_weights {line}"


def test_weights_as_a_list_of_pairs(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("reward_weights:\n  - exact: 0.5\n  - format=2\n")
    args = parse([*BASE.split(), "--config", f"{tmp_path}/run.yaml"])
    assert args.rewards.reward_weights == {"exact": 0.5, "format": 2.0}
    assert refused("--reward_weights 0.5 1")[0].startswith("--reward_weights takes name=number, as in exact=0.5")


def test_the_page_is_fresh():
    made = subprocess.run(
        [sys.executable, "-m", "lightrft.args.coming_from"], cwd=ROOT, capture_output=True, check=True
    )
    assert (ROOT / "docs" / "coming_from.md").read_bytes() == made.stdout, "make it anew: its first lines say how"


def test_a_nested_key_that_means_something_else_there_is_answered_with_its_row(tmp_path: Path):
    """Every one whose last part is a flag of ours, and whose first is a group of ours."""
    asked = [row for row in PEERS if row.name.count(".") == 1 and row.name.split(".")[0] in GROUPS]
    others = [row for row in asked if (last := row.name.split(".")[1]) in NAMES and NAMES.get(row.flag) != NAMES[last]]
    assert "data.train_batch_size" in {row.name for row in others}
    for row in others:
        group, key = row.name.split(".")
        (tmp_path / "run.yaml").write_text(f"{group}: {{{key}: 7}}\n")
        [line] = refusal(parse, [*BASE.split(), "--config", f"{tmp_path}/run.yaml"])
        assert f"use {row.flag}" in line, line
