"""Each flag that needs others to have an effect: a command line on which it has none, with the reason; and its witness,
on which it is shown to have one, and nothing may be told."""

from __future__ import annotations

import pytest
from command_lines import notices, parsed
from flags_over import flags_over

from lightrft.args.field import Witness
from lightrft.args.rules.ignored_flags import NEEDS, cannot_matter
from lightrft.args.surface import FLAGS

ONE_STEP = "there is one optimizer step per rollout step, so the ratio is exactly 1"
ADAM, CRITIC = "--optimizer sgd has no such setting", "--advantage_estimator group_norm has no critic"
NO_KL, NO_EVAL = "--init_kl_coef is 0, so no KL is computed", "there is no --eval_data"
OWN, NO_LORA = "the adapter of --lora_path has its own", "there is no --lora_rank"
NO_ROWS, LATE = "reasoning_gym: has no rows", "--max_steps 5 ends the run before"
COUNTS = "decides how many samples make a micro-batch"
FILES = "is a file, and a file is one split (reasoning_gym: and datasets have several)"
VAIN = f"""
clip_range 0.1 | {ONE_STEP}
clip_range_higher 0.1 | {ONE_STEP}
dual_clip 3.0 | {ONE_STEP}
critic_pretrain x | {CRITIC}
freezing_actor_steps 1 --max_steps 1 | {CRITIC}
value_head_prefix v | {CRITIC}
critic_learning_rate 1e-05 | {CRITIC}
lambd 1.0 | {CRITIC}
value_clip 0.1 | {CRITIC}
gamma 0.5 | --advantage_estimator group_norm has one advantage a response
kl_estimator k2 --init_kl_coef 0 --advantage_estimator reinforce | {NO_KL}
init_kl_coef 0.01 --advantage_estimator cpgd | {ONE_STEP}
use_kl_loss --init_kl_coef 0 | {NO_KL}
kl_target 0.01 --advantage_estimator cpgd | {ONE_STEP}
kl_horizon 15 | there is no --kl_target, so the coefficient is fixed
cpgd_drift_cap 3.0 | --advantage_estimator group_norm has no drift term
max_gen_batches 3 | there is no --dynamic_sampling
overlong_buffer_len 8 | there is no --overlong_buffer
overlong_buffer_penalty_factor 2.0 | there is no --overlong_buffer
is_cap 3.0 --is_correction off | --is_correction is off
is_low 0.5 --is_correction off | --is_correction is off
temperature_final 0.5 | --temperature_schedule is constant
temperature_schedule_steps 5 | --temperature_schedule is constant
first_token_temperature 5.0 | there is no --use_fire
fire_mask_first_token --max_new_tokens 1 | there is no --use_fire
replay_sampling_mask --top_p 1 | --top_p 1, --top_k -1 and --min_p 0 leave no token out
reward_running_norm_minus_mean | there is no --reward_running_norm
ema_beta 0.9 | there is no --enable_ema
actor_learning_rate 1e-06 --lora_rank 8 --lora_learning_rate 1e-05 | --lora_learning_rate is the policy's
lora_rank 8 --lora_path tests | {OWN}
lora_alpha 32.0 | {NO_LORA}
target_modules q_proj | {NO_LORA}
lora_bias all | {NO_LORA}
lora_learning_rate 1e-05 | {NO_LORA}
lora_merge | {NO_LORA}
double_quant --lora_rank 8 | there is no --load_in_4bit
quant_type fp4 --lora_rank 8 | there is no --load_in_4bit
num_episodes 20 --max_steps 5 | --max_steps 5 decides when training ends
lr_warmup_ratio 0.1 --lr_warmup_steps 0 | --lr_warmup_steps 0 decides the warm-up
adam_betas 0.9 0.9 --optimizer sgd | {ADAM}
adam_epsilon 1e-06 --optimizer sgd | {ADAM}
share_prompts --init_kl_coef 0 | --micro_train_batch_size 1 has no two samples of a prompt together
chunk_size 64 | there is no --fused_linear_logprob
recompute_granularity selective | there is no --gradient_checkpointing
activation_offload | there is no --gradient_checkpointing
packing_samples --init_kl_coef 0 | --micro_train_batch_size 1 has no two samples in a pass
micro_train_batch_size 2 --max_tokens_per_micro_batch 5000 | --max_tokens_per_micro_batch 5000 {COUNTS}
zero_stage 3 --fsdp | --fsdp replaces DeepSpeed ZeRO
adam_offload --fsdp --fsdp_cpu_offload | --fsdp_cpu_offload keeps all of it there
overlap_comm --fsdp | --fsdp overlaps communication by itself
ref_shard_size 1 --init_kl_coef 0 | {NO_KL}
ref_offload --lora_rank 4 | the reference is the policy without its adapters
ref_offload --fsdp --fsdp_cpu_offload | --fsdp_cpu_offload keeps the reference there too
prompt_split test | every source of --prompt_data {FILES}
input_key x --prompt_data reasoning_gym:a | {NO_ROWS}
label_key x --prompt_data reasoning_gym:a | {NO_ROWS}
images_key x --prompt_data reasoning_gym:a | {NO_ROWS}
reference_key x --prompt_data reasoning_gym:a | {NO_ROWS}
source_key x --prompt_data reasoning_gym:a | {NO_ROWS}
on_bad_row skip --prompt_data reasoning_gym:a | {NO_ROWS}
eval_split test | {NO_EVAL}
eval_steps 1 | {NO_EVAL}
max_eval_samples 1 | {NO_EVAL}
eval_temperature 1.0 | {NO_EVAL}
eval_batch_size 1 | {NO_EVAL}
save_steps 6 --max_steps 5 | {LATE}
wandb_org x | there is no --use_wandb
wandb_run_name x | there is no --use_wandb
num_trajectories_to_save 3 | there is no --save_trajectories
profile_steps 5 7 8 --max_steps 5 | {LATE} step 7
logging_steps 2 --quiet | --quiet prints no line per step
"""
MORE = f"""
target_modules q_proj --lora_path tests | {OWN}
adam_offload --fsdp --optimizer sgd | --optimizer sgd has no state
value_clip 0.1 --advantage_estimator gae | there is one optimizer step per rollout step, so values are the old ones
value_clip 0.1 --max_epochs 2 | {CRITIC}
kl_estimator k2 --advantage_estimator cpgd --max_epochs 2 | --advantage_estimator cpgd has a drift term in place of the KL to the reference
kl_target 0.01 --init_kl_coef 0 | {NO_KL}
kl_horizon 5000 --kl_target 0.01 --init_kl_coef 0 --max_epochs 2 --advantage_estimator cpgd | {NO_KL}
kl_horizon 5000 --advantage_estimator cpgd | {ONE_STEP}
cpgd_drift_cap 1.5 --advantage_estimator cpgd | {ONE_STEP}
cpgd_drift_cap 1.5 --advantage_estimator cpgd --max_epochs 2 --init_kl_coef 0 | {NO_KL}
reward_running_norm_minus_mean --reward_running_norm | --advantage_estimator group_norm takes each prompt's mean off, and there is no --reward_clip
label_key x --reference_key y | --reference_key names the reference's column
eval_split test --eval_data a.jsonl | every source of --eval_data {FILES}
eval_steps 6 --eval_data a.jsonl --max_steps 5 | {LATE}
"""  # fmt: skip  # noqa: E501
TOLD = [tuple(line.split(" | ")) for line in (VAIN + MORE).strip().splitlines() if line]
EVALUATED = "--eval_data add.jsonl"  # so is the run that the witnesses change
OLDER = {"eps_clip", "use_clip_higher"}  # each is told beside the clips that it sets


@pytest.mark.parametrize(("text", "reason"), TOLD)
def test_what_has_no_effect_is_told_with_the_reason(text: str, reason: str):
    typed = text.partition(" --")[0]
    assert [line for line in notices(f"--{text}") if line.startswith(f"--{typed} ")] == [
        f"--{typed} cannot matter: {reason}"
    ]


@pytest.mark.parametrize("text", ["--eps_clip 0.1", "--no-use_clip_higher"])
def test_an_older_switch_is_told_too(text: str):
    assert f"{text} cannot matter: {ONE_STEP}" in notices(text)


def test_a_value_that_would_have_had_an_effect_is_told_beside_the_one_that_has_none():
    assert notices("--max_steps 4 --save_steps 2 --save_steps 8") == [
        "--save_steps 8 cannot matter: --max_steps 4 ends the run before",
        "--save_steps 2 cannot matter: --save_steps 8 comes later and counts",
    ]


def test_every_flag_that_needs_others_stands_here():
    assert NEEDS.keys() == {line.split()[0] for line in VAIN.strip().splitlines()} | OLDER


SHOWN = [name for name in NEEDS if (witness := FLAGS[name].record.witness) and witness.seen != "refused"]


@pytest.mark.parametrize("name", SHOWN)
def test_nothing_is_told_where_the_witness_shows_the_effect(name: str):
    witness = FLAGS[name].record.witness or Witness("", "")
    flags = flags_over(f"{EVALUATED} {witness.given}", witness.change)
    found = notices(" ".join(flags).replace("{save_path}", "out"))
    assert not [line for line in found if line.startswith(f"--{name} ") and "cannot matter" in line]


def test_needs_are_of_flags_and_their_reasons_can_be_told():
    values = dict.fromkeys((*FLAGS, "late_step"), "x")
    assert not NEEDS.keys() - FLAGS.keys()
    assert all("{" not in need.otherwise.format(**values) for needs in NEEDS.values() for need in needs)


@pytest.mark.parametrize(
    "text",
    [
        "eval_data a.jsonl --eval_steps 5 --max_steps 5",
        "replay_sampling_mask --top_p 1 --top_k 50",
        "replay_sampling_mask --top_p 1 --min_p 0.1",
        "save_steps 5 --max_steps 5",
        "profile_steps 5 --max_steps 5",
        "share_prompts",
        "packing_samples --init_kl_coef 0 --max_tokens_per_micro_batch 5000",
        "share_prompts --init_kl_coef 0 --max_tokens_per_micro_batch 5000",
        "share_prompts --init_kl_coef 0 --micro_train_batch_size 2",
        "share_prompts --init_kl_coef 0 --max_epochs 2",
        "share_prompts --init_kl_coef 0 --high_entropy_token_ratio 0.5",
    ],
)
def test_nothing_is_told_at_the_edge(text: str):
    assert [line for line in notices(f"--{text}") if "cannot matter" in line] == []


@pytest.mark.parametrize(
    "text, flag, other, vain",
    [
        ("", "clip_range", 0.1, True),
        ("--max_epochs 2", "clip_range", 0.1, False),
        ("--advantage_estimator cpgd", "dual_clip", 3.0, True),
        ("--eval_data x --max_steps 5 --eval_steps 9", "eval_steps", 2, False),  # it was evaluated at steps 2 and 4
        ("--eval_data x --max_steps 5 --eval_steps 9", "eval_steps", 7, True),
        ("--max_steps 5", "profile_steps", [2], False),  # a list, as in JSON
        ("--optimizer sgd", "adam_betas", [0.8, 0.9], True),
        ("", "a_flag_of_an_earlier_version", 1, False),
    ],
)
def test_whether_another_value_would_change_anything(text, flag, other, vain):
    assert cannot_matter(parsed(text), flag, other) == vain
