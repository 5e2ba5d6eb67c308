#!/usr/bin/env bash
# bash examples/vision/qwen2_5_vl_7b.sh [flags of train_vl.py]: Qwen2.5-VL-7B-Instruct learns geometry from diagrams, on
# 8 GPUs of 80 GB. The data set has columns images, problem and answer; MODEL and DATA name other ones, also local folders.
# `--dry_run --assume_gpus 8x80GB` checks it on a machine without GPUs.
set -euo pipefail
launch=(torchrun --nproc_per_node 8)
case " $*" in *" --dry_run"* | *" --assume_gpus"* | *" --print_args"*) launch=(python) LIGHTRFT_INSTALL=no ;; esac
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh" || exit 1
cd "$LIGHTRFT_ROOT"

"${launch[@]}" train_vl.py \
    --pretrain "${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}" \
    --prompt_data "${DATA:-hiyouga/geometry3k}" --input_key problem --label_key answer \
    --system_prompt 'Reason step by step, and put the final answer into \boxed{}.' \
    --reward_fn boxed \
    --max_pixels 1003520 --limit_mm_image_per_prompt 4 \
    --prompt_max_len 2048 --max_new_tokens 2048 --max_len 4096 \
    --advantage_estimator group_norm --use_kl_loss --init_kl_coef 0.001 \
    --rollout_batch_size 128 --n_samples_per_prompt 8 --train_batch_size 1024 \
    --micro_rollout_batch_size 16 --micro_train_batch_size 1 \
    --temperature 1 --top_p 1 \
    --actor_learning_rate 1e-6 --lr_scheduler constant --num_episodes 15 \
    --bf16 --zero_stage 3 \
    --engine_type vllm --engine_tp_size 1 --engine_mem_util 0.6 \
    --save_steps 20 --save_trajectories --save_path "$(fresh_folder outputs/qwen2_5_vl_7b)" "$@"
