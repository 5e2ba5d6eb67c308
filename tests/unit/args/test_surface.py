"""The list of flags.md, and what every flag must declare."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lightrft.args.command_line import build_parser
from lightrft.args.surface import FLAGS, GROUPS, NAMES
from lightrft.args.unbuilt import UNBUILT

BUILT = """
pretrain max_len prompt_max_len max_new_tokens attn_implementation trust_remote_code cache_dir disable_fast_tokenizer
num_episodes max_epochs max_steps actor_learning_rate lr_warmup_ratio lr_warmup_steps lr_scheduler optimizer max_norm
l2 adam_betas adam_epsilon seed train_batch_size micro_train_batch_size rollout_batch_size micro_rollout_batch_size
advantage_estimator n_samples_per_prompt kl_estimator init_kl_coef use_kl_loss clip_range clip_range_higher
loss_agg_mode temperature top_p top_k min_p stop reward_fn reward_weights zero_stage fsdp fsdp_cpu_offload bf16 fp16
engine_type prompt_data prompt_split input_key label_key apply_chat_template system_prompt eval_data eval_split
eval_steps max_eval_samples eval_temperature eval_batch_size log_dir plot_every use_tensorboard logging_steps quiet
save_path ckpt_path load_checkpoint save_interval save_steps max_ckpt_num max_ckpt_mem save_hf_ckpt config print_args
dry_run strict_args share_prompts prompt_data_probs max_samples reference_key source_key input_template on_bad_row
use_wandb wandb_org wandb_run_name save_trajectories num_trajectories_to_save profile_steps mode assume_gpus kl_target
kl_horizon dual_clip entropy_coef gamma cpgd_drift_cap high_entropy_token_ratio dynamic_sampling max_gen_batches
overlong_buffer overlong_buffer_len overlong_buffer_penalty_factor overlong_filter is_correction is_cap is_low
eps_clip use_clip_higher use_gspo use_cpg_loss temperature_schedule temperature_final temperature_schedule_steps
use_fire first_token_temperature fire_mask_first_token reward_running_norm reward_running_norm_minus_mean
advantages_norm advantage_clip
reward_clip critic_pretrain freezing_actor_steps value_head_prefix critic_learning_rate lambd value_clip
adam_offload hybrid_shard_size sp_size zpg overlap_comm ref_shard_size ref_offload dist_timeout_s enable_ema
ema_beta watchdog_s meta_init engine_kwargs enable_engine_sleep engine_tp_size engine_mem_util
max_logprob_gap on_logprob_gap engine_dtype oversample_ratio replay_sampling_mask images_key
freeze_prefix freeze_backbone tune_projector processor dataloader_num_workers mixed_mm_data max_pixels fps
limit_mm_image_per_prompt gradient_checkpointing fused_linear_logprob chunk_size
packing_samples max_tokens_per_micro_batch use_mp_opt fsdp_reshard recompute_granularity activation_offload
lora_rank lora_alpha lora_dropout target_modules lora_bias lora_learning_rate lora_path lora_merge
load_in_4bit bits double_quant quant_type
"""
OTHERS = """
reward_pretrain remote_rm_url
reward_timeout reward_workers judge_template judge_url
rm_use_engine eval_n_samples
"""
SEEN = {"metrics", "model", "average", "files", "output", "summary", "trajectories", "wandb", "refused", "run", "gpu"}


def test_every_flag_of_the_contract_is_built_or_refused():
    assert set(FLAGS) == {*BUILT.split(), *OTHERS.split()}
    assert set(UNBUILT) == set(OTHERS.split())
    assert NAMES["clip_range_lower"] == "clip_range" and NAMES["normalize_advantages"] == "advantages_norm"
    assert NAMES["generate_max_len"] == "max_new_tokens" and NAMES["disable_engine_sleep"] == "enable_engine_sleep"


def test_no_flag_has_the_name_of_a_group():
    assert not set(GROUPS) & {*NAMES}


@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_help_witness_and_default(flag):
    record = flag.record
    assert record.help.endswith(".") and record.witness is not None
    assert not record.unbuilt or record.witness.seen == "refused"
    assert record.witness.seen in SEEN or record.witness.seen.startswith("perf:")
    assert f"--{flag.name}" in record.witness.change.replace("--no-", "--").split()
    assert record.required or record.default is not None or record.unset
    assert record.default is None or record.violation(record.default) is None or flag.name == "advantage_estimator"


@pytest.mark.parametrize("flag", FLAGS.values(), ids=FLAGS)
def test_witnesses_are_command_lines(flag):
    words = [*flag.record.witness.given.split(), *flag.record.witness.change.split()]
    assert build_parser().parse_known_args(words)[1] == []


def test_groups_have_titles():
    titles = (
        "Model Training Batch Algorithm Sampling Rewards Distributed Memory Engine Data Evaluation Multimodal Logging "
        "Checkpoint"
    )
    assert [cls.__doc__ for cls in GROUPS.values()] == [*titles.split(" "), "Run control"]


def test_defaults_of_the_document():
    documented = {
        "max_len": 4096, "prompt_max_len": 2048, "num_episodes": 1, "max_epochs": 1, "actor_learning_rate": 5e-7,
        "lr_warmup_ratio": 0.03, "max_norm": 1.0, "l2": 0.0, "adam_betas": (0.9, 0.95), "micro_train_batch_size": 1,
        "micro_rollout_batch_size": 2, "advantage_estimator": "group_norm", "n_samples_per_prompt": 4,
        "kl_estimator": "k3", "init_kl_coef": 0.001, "clip_range": 0.2, "clip_range_higher": 0.3, "temperature": 1.0,
        "top_p": 0.9, "zero_stage": 2, "fsdp": False, "fsdp_cpu_offload": False, "log_dir": None, "plot_every": 10,
        "use_tensorboard": None, "ckpt_path": None, "load_checkpoint": False, "save_interval": 1, "max_ckpt_num": 3,
        "max_ckpt_mem": 1000, "lr_scheduler": "cosine_with_min_lr", "optimizer": "adamw", "adam_epsilon": 1e-8,
        "seed": 42, "top_k": -1, "min_p": 0, "prompt_split": "train", "input_key": "prompt", "label_key": "label",
        "critic_learning_rate": 9e-6, "gradient_checkpointing": False, "sp_size": 1, "engine_tp_size": 1,
        "engine_mem_util": 0.5, "enable_engine_sleep": True, "rm_use_engine": False, "adam_offload": False,
        "use_mp_opt": False, "packing_samples": False, "fused_linear_logprob": False, "chunk_size": 4096,
        "use_wandb": None, "wandb_org": None, "wandb_run_name": None, "reward_running_norm": False,
        "reward_running_norm_minus_mean": False, "advantage_clip": 0.0, "reward_clip": 0.0, "mixed_mm_data": False,
        "processor": None, "gamma": 1, "lambd": 0.95, "value_clip": 0.2, "cpgd_drift_cap": 2, "is_cap": 2,
        "is_correction": "token_truncate", "kl_horizon": 10000, "first_token_temperature": 10, "eval_n_samples": 1,
        "on_logprob_gap": "warn", "high_entropy_token_ratio": 0, "on_bad_row": "error", "images_key": "images",
        "lora_rank": 0, "reward_pretrain": (), "remote_rm_url": (),
        "eval_split": "test", "eval_temperature": 0, "logging_steps": 1, "engine_type": "auto",
    }  # fmt: skip
    assert {name: FLAGS[name].record.default for name in documented} == documented


def test_no_torch_is_imported():
    code = "import lightrft.args, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
