#!/bin/sh
# Zero-shot CLIP on the base or new classes of one task of a suite; TASK is its number, or all.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG TASK base|new" 4 4 "$@"

TASK=task$3
[ "$3" = all ] && TASK=all
run "$OUTPUT/$1/base2new/zeroshot_$4/ZeroshotCLIP/$2/$TASK" --trainer ZeroshotCLIP --eval-only --seed 1 \
    --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/ZeroShot/$2.yaml" \
    DATASET.SUBSAMPLE_TASKS "$TASK" DATASET.SUBSAMPLE_CLASSES "$4"
