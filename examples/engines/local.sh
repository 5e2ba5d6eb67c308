#!/usr/bin/env bash
# bash examples/engines/local.sh [flags of train.py]: tiny addition, sampled in the trainer's process.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../tiny_addition.sh" --engine_type local "$@"
