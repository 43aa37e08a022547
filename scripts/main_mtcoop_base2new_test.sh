#!/bin/sh
# SoftCPT trained on the base classes (main_mtcoop_base2new_train.sh), tested on the new ones.
set -e
cd "$(dirname "$0")"
. ./mtcoop_options.sh
. ./set_env.sh
usage "$MTCOOP_USAGE" 11 11 "$@"

for SEED in $SEEDS; do
    MODEL="$OUTPUT/$1/base2new/train_base/MTCoOp/$(mtcoop_dir "$@")/seed$SEED"
    need_finished "$MODEL" main_mtcoop_base2new_train.sh
    run_mtcoop "$OUTPUT/$1/base2new/test_new/MTCoOp/$(mtcoop_dir "$@")/seed$SEED" "$@" -- --seed "$SEED" \
        --eval-only --model-dir "$MODEL" DATASET.SUBSAMPLE_CLASSES new
done
