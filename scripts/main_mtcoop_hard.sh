#!/bin/sh
# CoOp on many tasks: a context for all classes (CSC False, TSC False), per task (TSC True) or per class (CSC True).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG SHOTS N_CTX CSC TSC" 6 6 "$@"

for SEED in $SEEDS; do
    run "$OUTPUT/$1/MTCoOpHard/$2_$3shots/nctx$4_csc$5_tsc$6/seed$SEED" \
        --trainer MTCoOpHard --seed "$SEED" \
        --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/MTCoOpHard/$2.yaml" \
        DATASET.NUM_SHOTS "$3" TRAINER.MTCOOPH.N_CTX "$4" TRAINER.MTCOOPH.CSC "$5" TRAINER.MTCOOPH.TSC "$6"
done
