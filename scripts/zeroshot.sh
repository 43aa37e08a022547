#!/bin/sh
# Zero-shot CLIP on one task of a suite; TASK is its number, or all. TRAINER: ZeroshotCLIP, or ZeroshotCLIP2 (ensemble).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG TASK [TRAINER]" 3 4 "$@"

TRAINER=${4:-ZeroshotCLIP}
TASK=task$3
[ "$3" = all ] && TASK=all
run "$OUTPUT/$1/$TRAINER/$2/$TASK" --trainer "$TRAINER" --eval-only --seed 1 \
    --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/ZeroShot/$2.yaml" \
    DATASET.SUBSAMPLE_TASKS "$TASK"
