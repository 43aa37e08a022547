#!/bin/sh
# SoftCPT: NATA, NATS (TASK_CSC True) and, with CSC True, CATA, CSTA (CLASS_CSC True), CATS, CSTS.
set -e
cd "$(dirname "$0")"
. ./mtcoop_options.sh
. ./set_env.sh
usage "$MTCOOP_USAGE" 11 11 "$@"

for SEED in $SEEDS; do
    run_mtcoop "$OUTPUT/$1/MTCoOp/$(mtcoop_dir "$@")/seed$SEED" "$@" -- --seed "$SEED"
done
