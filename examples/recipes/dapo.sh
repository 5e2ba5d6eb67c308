#!/usr/bin/env bash
# bash examples/recipes/dapo.sh [flags of train.py]: DAPO, arXiv:2503.14476.
# Clip-higher, token-mean, dynamic sampling, overlong shaping, no KL term.
# It runs on the tiny addition model as it stands. For a model of 7B on 8 GPUs of 80 GB, put what follows "7B:" in place
# of its line; the rest is the algorithm.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh"
cd "$LIGHTRFT_ROOT"

start="outputs/tiny_start"
[ -d "$start/model" ] || python examples/tiny_addition.py --out "$start" # 7B:
launch=(python train.py) # 7B: launch=(torchrun --nproc_per_node 8 train.py)
model=(
    --pretrain "$start/model" # 7B: --pretrain Qwen/Qwen2.5-7B-Instruct
    --prompt_data "$start/train.jsonl" --reward_fn last_number # 7B: --prompt_data math.jsonl --reward_fn math
    --prompt_max_len 8 --max_new_tokens 4 --max_len 12 # 7B: --prompt_max_len 1024 --max_new_tokens 3072 --max_len 4096
    --rollout_batch_size 16 --n_samples_per_prompt 16 # 7B: --rollout_batch_size 128 --n_samples_per_prompt 8
    --train_batch_size 64 # 7B: --train_batch_size 256
    --actor_learning_rate 1.5e-4 --lr_scheduler constant # 7B: --actor_learning_rate 1e-6
    --max_steps 60 # 7B: --num_episodes 10
    --overlong_buffer --overlong_buffer_len 1 # 7B: --overlong_buffer --overlong_buffer_len 512
)
gpu=(
    --micro_train_batch_size 64 # 7B: --micro_train_batch_size 2
    --micro_rollout_batch_size 16 # 7B: --micro_rollout_batch_size 8
    --no-bf16 --save_interval 0 # 7B: --bf16 --zero_stage 3 --save_steps 20
)
"${launch[@]}" "${model[@]}" "${gpu[@]}" --save_path "$(fresh_folder outputs/dapo)" \
    --advantage_estimator group_norm --clip_range 0.2 --clip_range_higher 0.28 --loss_agg_mode token-mean \
    --dynamic_sampling --max_gen_batches 10 --overlong_buffer_penalty_factor 1 --init_kl_coef 0 "$@"
