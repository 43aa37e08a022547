#!/bin/sh
# CoOp trained by main_mtcoop_hard.sh, its context tested on tasks that it need not have seen: TASKS of the dataset
# TARGET (all, or a list such as task0,task3).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG SHOTS N_CTX CSC TSC TARGET TASKS" 8 8 "$@"

FROM="$OUTPUT/$1/MTCoOpHard/$2_$3shots/nctx$4_csc$5_tsc$6"
TO="$OUTPUT/$1/transfer/$7_$8/MTCoOpHard/$2_$3shots/nctx$4_csc$5_tsc$6"
for SEED in $SEEDS; do
    need_finished "$FROM/seed$SEED" main_mtcoop_hard.sh
    run "$TO/seed$SEED" --trainer MTCoOpHard --seed "$SEED" --eval-only --model-dir "$FROM/seed$SEED" \
        --dataset-config-file "configs/datasets/$7.yaml" --config-file "configs/trainers/MTCoOpHard/$2.yaml" \
        DATASET.SUBSAMPLE_TASKS "$8" \
        DATASET.NUM_SHOTS "$3" TRAINER.MTCOOPH.N_CTX "$4" TRAINER.MTCOOPH.CSC "$5" TRAINER.MTCOOPH.TSC "$6"
done
