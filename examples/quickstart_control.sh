#!/usr/bin/env bash
# bash examples/quickstart_control.sh [flags of train.py]: the quickstart twice, with true and with shuffled rewards.
# What the first learns and the second does not comes from the rewards.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh" || exit 1
cd "$LIGHTRFT_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # nothing here comes from a hub

out="$(fresh_folder outputs/quickstart_control)"
recipe=(--config examples/quickstart.yaml "$@")
python examples/smollm2.py --out models/SmolLM2-135M-Instruct
python train.py "${recipe[@]}" --save_path "$out/true"
python train.py "${recipe[@]}" --save_path "$out/shuffled" --reward_fn examples/shuffled_reward.py:shuffled_last_number
python examples/before_after.py "true rewards=$out/true" "shuffled rewards=$out/shuffled"
