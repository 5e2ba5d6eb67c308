#!/usr/bin/env bash
# bash examples/volumes/volumes.sh [flags of train_vl.py]: where in a volume a tumour lies, on volumes that are made here,
# with the settings of volumes.yaml. MODEL names the model; KIND=image shows each slice as an image, to models that read no
# videos. The flags below for 4 GPUs of 80 GB are left out on a machine that has none. A plan (`--dry_run`) leaves nothing.
set -euo pipefail
plan=""
case " $*" in *" --dry_run"* | *" --assume_gpus"* | *" --print_args"*) plan=yes LIGHTRFT_INSTALL=no ;; esac
. "$(dirname "${BASH_SOURCE[0]}")/../env.sh" || exit 1
cd "$LIGHTRFT_ROOT"

kind="${KIND:-video}" start="${START:-outputs/volumes_$kind}"
if [ ! -f "$start/eval.jsonl" ]; then
    if [ -n "$plan" ]; then
        start="$(mktemp -d)"
        trap 'rm -rf "$start"' EXIT
    fi
    python examples/volumes/make_volumes.py --out "$start" --kind "$kind"
fi
launch=(python) machine=()
if command -v nvidia-smi >/dev/null; then
    launch=(torchrun --nproc_per_node 4)
    machine=(--bf16 --zero_stage 3 --engine_type local)  # no other engine takes videos
    [ "$kind" = video ] ||
        machine+=(--engine_type vllm --engine_mem_util 0.55 --engine_kwargs enable_chunked_prefill=false)
fi
"${launch[@]}" train_vl.py --config examples/volumes/volumes.yaml \
    --pretrain "${MODEL:-Qwen/Qwen2.5-VL-3B-Instruct}" \
    --prompt_data "$start/train.jsonl" --eval_data "$start/eval.jsonl" \
    --prompt_max_len 2048 --max_new_tokens 1024 --max_len 3072 \
    --rollout_batch_size 32 --train_batch_size 256 --micro_rollout_batch_size 8 \
    --num_episodes 10 --save_trajectories --save_path "$(fresh_folder outputs/volumes_run)" "${machine[@]}" "$@"
