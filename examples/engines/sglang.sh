#!/usr/bin/env bash
# bash examples/engines/sglang.sh [flags of train.py]: tiny addition, sampled by SGLang on a machine without a GPU. The first
# time it makes an environment for SGLang beside .venv. With a GPU: pip install "lightrft[sglang]", and --engine_type sglang.
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
bash "$root/tests/engines/environment.sh" sglang
export LIGHTRFT_ENVIRONMENT="$root/.venv-sglang"
exec bash "$root/examples/tiny_addition.sh" --engine_type sglang "$@"
