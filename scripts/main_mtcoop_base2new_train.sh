#!/bin/sh
# SoftCPT trained on the base classes of every task.
set -e
cd "$(dirname "$0")"
. ./mtcoop_options.sh
. ./set_env.sh
usage "$MTCOOP_USAGE" 11 11 "$@"

for SEED in $SEEDS; do
    run_mtcoop "$OUTPUT/$1/base2new/train_base/MTCoOp/$(mtcoop_dir "$@")/seed$SEED" "$@" -- --seed "$SEED" \
        DATASET.SUBSAMPLE_CLASSES base
done
