#!/usr/bin/env bash
# bash examples/launch/one_node.sh [flags of train.py]: as many processes as this machine has GPUs (without any: cores).
#
#   PROCESSES   so many instead
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
exec torchrun --standalone --nproc_per_node "${PROCESSES:-auto}" "$LIGHTRFT_ROOT/train.py" "$@"
