#!/bin/sh
# Linear probe on tasks 0 to MAX_TASK of a suite, or on all, with SHOTS shots.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET MODEL MAX_TASK" 3 3 "$@"

TASKS="--tasks 0"
case $3 in
    all) TASKS= ;;
    "" | *[!0-9]* | ????*) stop 2 "error: MAX_TASK is '$3', but must be the number of the last task, or all" ;;
    *)
        TASK=0
        while [ "$TASK" -lt "$3" ]; do
            TASK=$((TASK + 1))
            TASKS="$TASKS $TASK"
        done ;;
esac
# shellcheck disable=SC2086 # TASKS, SHOTS, SEEDS and OPTS are words
"$PYTHON" -m lpclip.linear_probe --root "$DATA" --output-dir "$OUTPUT/$1/LP/$2" $TASKS --shots $SHOTS --seeds $SEEDS \
    --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/LP/$2_val.yaml" $OPTS
