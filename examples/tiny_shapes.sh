#!/usr/bin/env bash
# bash examples/tiny_shapes.sh [flags of train_vl.py]: a 0.14 M-parameter model that sees learns to count shapes, without
# any download of a model, in minutes on two cores. OUT names the folder to write to.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh" || exit 1
cd "$LIGHTRFT_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # nothing here comes from a hub

out="$(fresh_folder "${OUT:-outputs/tiny_shapes}")"
python examples/tiny_shapes.py --out "$out/start"
python train_vl.py --config examples/tiny_shapes.yaml --pretrain "$out/start/model" \
    --prompt_data "$out/start/train.jsonl" --eval_data "$out/start/eval.jsonl" --save_path "$out/run" "$@"
python examples/before_after.py "tiny shapes=$out/run"
