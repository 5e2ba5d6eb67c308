#!/usr/bin/env bash
# bash examples/tiny_shapes_control.sh [flags of train_vl.py]: tiny_shapes twice, with the images that were asked about,
# and with other rows' images. What the first learns and the second does not comes from looking. OUT names the folder to
# write to.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh" || exit 1
cd "$LIGHTRFT_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # nothing here comes from a hub

out="$(fresh_folder "${OUT:-outputs/tiny_shapes_control}")"
python examples/tiny_shapes.py --out "$out/start"
recipe=(--config examples/tiny_shapes.yaml --pretrain "$out/start/model" --eval_data "$out/start/eval.jsonl" "$@")
python train_vl.py "${recipe[@]}" --prompt_data "$out/start/train.jsonl" --save_path "$out/true"
python train_vl.py "${recipe[@]}" --prompt_data "$out/start/shuffled.jsonl" --save_path "$out/shuffled"
python examples/before_after.py "true images=$out/true" "shuffled images=$out/shuffled"
