#!/usr/bin/env bash
# bash examples/engines/vllm.sh [flags of train.py]: tiny addition, sampled by vLLM on a machine without a GPU. The first
# time it makes an environment for vLLM beside .venv. With a GPU: pip install "lightrft[vllm]", and --engine_type vllm.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
bash "$root/tests/engines/environment.sh" vllm
export LIGHTRFT_ENVIRONMENT="$root/.venv-vllm"
exec bash "$root/examples/tiny_addition.sh" --engine_type vllm "$@"
