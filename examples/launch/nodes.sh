#!/usr/bin/env bash
# NODES=2 NODE=0 MASTER=10.0.0.1 bash examples/launch/nodes.sh [flags of train.py]: on each of several machines.
#
#   NODES       how many machines there are; all see the same --save_path, model and data at the same paths
#   NODE        the number of this one, from 0 on; the first one holds rank 0
#   MASTER      a name or address of the first one that all others reach
#   PORT        free there (29500)
#   PROCESSES   on this machine; default: its GPUs, or its cores without any
#   RENDEZVOUS  static: the machines are as numbered. c10d: they are numbered as they come, NODE is not needed
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/settings.sh"
: "${NODES:?how many machines are there?}" "${MASTER:?the name or address of the first machine}" "${PORT:=29500}"
case "${RENDEZVOUS:=static}" in
    static) meeting=(--node_rank "${NODE:?which machine is this, from 0 on?}" --master_addr "$MASTER" --master_port "$PORT") ;;
    c10d) meeting=(--rdzv_backend c10d --rdzv_endpoint "$MASTER:$PORT" --rdzv_id "${RUN_ID:-lightrft}") ;;
    *) echo "RENDEZVOUS=$RENDEZVOUS is neither static nor c10d" >&2; exit 2 ;;
esac
exec torchrun --nnodes "$NODES" --nproc_per_node "${PROCESSES:-auto}" "${meeting[@]}" "$LIGHTRFT_ROOT/train.py" "$@"
