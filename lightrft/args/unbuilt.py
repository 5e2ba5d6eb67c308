"""Flags and choices of the surface that no part of the project builds yet.

Setting one is refused; it is never accepted and ignored. Who builds a flag moves it from here to its group.
"""

from __future__ import annotations

_BY_PART = {
    "rewards": """
        reward_pretrain remote_rm_url reward_timeout reward_workers judge_template judge_url
        prompt_data_probs max_samples reference_key source_key input_template on_bad_row dataloader_num_workers
        eval_n_samples
    """,
    "estimators": """
        critic_pretrain freezing_actor_steps value_head_prefix critic_learning_rate
        kl_target kl_horizon dual_clip entropy_coef gamma lambd value_clip
        cpgd_drift_cap high_entropy_token_ratio dynamic_sampling max_gen_batches
        overlong_buffer overlong_buffer_len overlong_buffer_penalty_factor overlong_filter
        is_correction is_cap is_low
        eps_clip clip_range_lower use_clip_higher use_gspo use_cpg_loss normalize_advantages
        temperature_schedule temperature_final temperature_schedule_steps use_fire first_token_temperature
        reward_running_norm reward_running_norm_minus_mean advantages_norm advantage_clip reward_clip
    """,
    "distributed": """
        lora_rank lora_alpha lora_dropout target_modules lora_bias lora_learning_rate lora_path
        load_in_4bit bits double_quant quant_type enable_ema ema_beta max_tokens_per_micro_batch
        sp_size zpg hybrid_shard_size overlap_comm ref_shard_size meta_init dist_timeout_s gradient_checkpointing
        adam_offload packing_samples fused_linear_logprob chunk_size use_mp_opt assume_gpus watchdog_s
    """,
    "engines": """
        engine_tp_size engine_mem_util enable_engine_sleep disable_engine_sleep engine_dtype engine_kwargs
        max_logprob_gap on_logprob_gap oversample_ratio rm_use_engine limit_mm_image_per_prompt
    """,
    "vision": """
        freeze_prefix freeze_backbone tune_projector images_key mixed_mm_data processor max_pixels fps
    """,
    "surface": """
        use_wandb wandb_org wandb_run_name save_trajectories num_trajectories_to_save profile_steps mode
    """,
}

UNBUILT: dict[str, str] = {flag: part for part, flags in _BY_PART.items() for flag in flags.split()}
UNBUILT_CHOICES: dict[tuple[str, str], str] = {("engine_type", "vllm"): "engines", ("engine_type", "sglang"): "engines"}
