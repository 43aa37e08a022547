#!/bin/sh
# Linear probe on tasks 0 to MAX_TASK of a suite, or on all: a run for each of SHOTS and SEEDS.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET MODEL MAX_TASK" 3 3 "$@"

TASKS=task0
case $3 in
    all) TASKS=all ;;
    "" | *[!0-9]* | ????*) stop 2 "error: MAX_TASK is '$3', but must be the number of the last task, or all" ;;
    *)
        TASK=0
        while [ "$TASK" -lt "$3" ]; do
            TASK=$((TASK + 1))
            TASKS="$TASKS,task$TASK"
        done ;;
esac
for N in $SHOTS; do
    for SEED in $SEEDS; do
        run "$OUTPUT/$1/LP/$2/tasks_$3/${N}shots/seed$SEED" --trainer LinearProbe --seed "$SEED" \
            --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/LP/$2_val.yaml" \
            DATASET.NUM_SHOTS "$N" DATASET.SUBSAMPLE_TASKS "$TASKS"
    done
done
