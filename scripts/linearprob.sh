#!/bin/sh
# Linear probe on tasks 0 to MAX_TASK of a suite, or on all, with SHOTS shots.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET MODEL MAX_TASK" 3 "$@"

# probe DIR ARGUMENT...: one call of the linear probe into DIR.
probe() {
    probe_dir=$1
    shift
    # shellcheck disable=SC2086 # SHOTS, SEEDS and OPTS are words
    "$PYTHON" -m lpclip.linear_probe --root "$DATA" --output-dir "$probe_dir" --dataset-config-file "$DATASET_CONFIG" \
        --config-file "$CONFIG" --shots $SHOTS --seeds $SEEDS "$@" $OPTS
}

DATASET_CONFIG=configs/datasets/$1.yaml
CONFIG=configs/trainers/LP/$2_val.yaml
case $3 in
    all) probe "$OUTPUT/$1/LP/$2" --every-task ;;
    "" | *[!0-9]*) echo "error: MAX_TASK is '$3', but must be the number of the last task, or all" >&2; exit 2 ;;
    *)
        TASK=0
        while [ "$TASK" -le "$3" ]; do
            probe "$OUTPUT/$1/LP/$2/task$TASK" DATASET.SUBSAMPLE_TASKS "task$TASK"
            TASK=$((TASK + 1))
        done ;;
esac
