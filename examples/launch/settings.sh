# Sourced by the recipes of this folder: what processes of one machine should know. LIGHTRFT_ROOT is the repository.
# A value that the environment has already is kept.
# shellcheck shell=bash

# shellcheck disable=SC2034
LIGHTRFT_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
# Threads of each process; torchrun sets 1. On CPUs: the machine's cores over its processes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
# Seconds that torchrun gives its processes to finish their step and save after a signal, before it kills them.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}"
# Where machines have several networks, and only then, name the one that joins them (`ip addr` lists them):
#   export GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0
# NCCL's own account of what it found, where machines do not come together:
#   export NCCL_DEBUG=INFO
