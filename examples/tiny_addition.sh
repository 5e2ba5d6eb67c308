#!/usr/bin/env bash
# bash examples/tiny_addition.sh [flags of train.py]: a 0.4 M-parameter model learns one-digit addition, without any
# download of a model, in less than two minutes on one core.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh" || exit 1
cd "$LIGHTRFT_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # nothing here comes from a hub

out="$(fresh_folder outputs/tiny_addition)"
python examples/tiny_addition.py --out "$out/start"
python train.py \
    --pretrain "$out/start/model" \
    --prompt_data "$out/start/train.jsonl" \
    --eval_data "$out/start/eval.jsonl" \
    --reward_fn last_number \
    --save_path "$out/run" \
    --prompt_max_len 8 --max_new_tokens 4 --max_len 12 \
    --advantage_estimator group_norm \
    --rollout_batch_size 32 --n_samples_per_prompt 16 --train_batch_size 512 \
    --micro_train_batch_size 512 --micro_rollout_batch_size 32 \
    --temperature 1 --top_p 1 --init_kl_coef 0 \
    --actor_learning_rate 1.5e-4 --lr_scheduler constant \
    --max_steps 120 --save_interval 0 "$@"
python examples/before_after.py "tiny addition=$out/run"
