#!/usr/bin/env bash
# bash examples/quickstart.sh [flags of train.py]: trains SmolLM2-135M-Instruct on small sums, in minutes on two cores.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/env.sh" || exit 1
cd "$LIGHTRFT_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" # nothing here comes from a hub

out="$(fresh_folder outputs/quickstart)"
python examples/smollm2.py --out models/SmolLM2-135M-Instruct
python train.py --config examples/quickstart.yaml --save_path "$out" --use_tensorboard "$out/tensorboard" "$@"
python examples/before_after.py "quickstart=$out"
