#!/bin/sh
# SoftCPT with class-level contexts, trained on a sample of the negative classes in every step.
set -e
cd "$(dirname "$0")"
. ./mtcoop_options.sh
. ./set_env.sh
usage "$MTCOOP_USAGE CLS_SAMPLE_RATE" 12 12 "$@"

for SEED in $SEEDS; do
    run_mtcoop "$OUTPUT/$1/MTCoOp/$(mtcoop_dir "$@")_sample${12}/seed$SEED" "$@" -- --seed "$SEED" \
        TRAINER.MTCOOP.CLS_SAMPLE_RATE "${12}"
done
