#!/usr/bin/env bash
# Checkpoints under a tool that nobody here wrote: ckpt-chaos (PyPI) kills a run before every file that it makes,
# renames or removes, and again with the file cut in half, resumes it, and compares steps and final weights with a run
# that was left alone. Both strategies, one rank and two (each of them killed in turn).
#
#   pip install ckpt-chaos==0.1.8
#   bash benchmarks/checkpoint_chaos.sh OUT [POINTS [SETTING ...]]
#
# POINTS: at most so many kills in each setting. SETTING: "fsdp|zero RANKS KILLED_RANK"; without one, all six.
#
# The run changes into {out} first: its paths are then as long there as in the run that it is compared with.
set -euo pipefail
out=$(realpath -m "${1:?OUT: a new folder}") points=${2:-1000}
here=$(cd "$(dirname "$0")/.." && pwd)
export HF_HUB_OFFLINE=1 CKPT_CHAOS_PREPEND_PYTHONPATH="$here"
mkdir -p "$out"
python "$here/examples/tiny_addition.py" --out "$out/start"
flags="--pretrain $out/start/model --prompt_data $out/start/train.jsonl --reward_fn last_number --prompt_max_len 16
 --max_len 24 --rollout_batch_size 2 --n_samples_per_prompt 4 --train_batch_size 8 --micro_train_batch_size 4
 --micro_rollout_batch_size 2 --actor_learning_rate 1e-3 --plot_every 0 --max_steps 2 --save_steps 1 --max_ckpt_num 9
 --quiet --load_checkpoint --save_path ."

settings=("${@:3}")
[ $# -gt 2 ] || settings=("fsdp 1 0" "zero 1 0" "fsdp 2 0" "fsdp 2 1" "zero 2 0" "zero 2 1")
failed=0
for setting in "${settings[@]}"; do
    read -r strategy ranks killed <<<"$setting"
    case $strategy in fsdp) choice="--fsdp" ;; zero) choice="--zero_stage 2" ;; esac
    echo "== $choice, $ranks rank(s), rank $killed is killed"
    # 0.1.8 tells no process of --crash-rank: without the variable it is always rank 0 that may die
    CKPT_CHAOS_CRASH_RANK=$killed python -m ckpt_chaos run --ranks "$ranks" --crash-rank "$killed" --max-points "$points" \
        --work "$out/$strategy-$ranks-$killed" --checkpoint-glob "{out}/checkpoints/step_*" \
        --step-regex "resumed from step (\d+)" --result-file "{out}/model.safetensors" \
        --fail-on HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK,CONTROL_FAIL \
        -- sh -c "mkdir -p {out} && cd {out} && exec python $here/train.py $(echo $flags) $choice" \
        > "$out/$strategy-$ranks-$killed.log" || failed=1
    tail -n 1 "$out/$strategy-$ranks-$killed.log"
done
exit $failed
