#!/bin/sh
# Zero-shot CLIP on one task of a suite; TASK is its number, or all.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG TASK" 3 "$@"

TASK=task$3
[ "$3" = all ] && TASK=all
run "$OUTPUT/$1/ZeroshotCLIP/$2/$TASK" --trainer ZeroshotCLIP --eval-only --seed 1 \
    --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/ZeroShot/$2.yaml" \
    DATASET.SUBSAMPLE_TASKS "$TASK"
