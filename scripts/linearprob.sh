#!/bin/sh
# Linear probe on tasks 0 to MAX_TASK of a suite, 1/2/4/8/16 shots.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET MODEL MAX_TASK" 3 "$@"

case $3 in
    "" | *[!0-9]*) echo "error: MAX_TASK is '$3', but must be the number of the last task" >&2; exit 2 ;;
esac

TASKS=0
TASK=0
while [ "$TASK" -lt "$3" ]; do
    TASK=$((TASK + 1))
    TASKS="$TASKS $TASK"
done
# shellcheck disable=SC2086 # TASKS, SEEDS and OPTS are words
"$PYTHON" -m lpclip.linear_probe --root "$DATA" --output-dir "$OUTPUT/$1/LP/$2" --tasks $TASKS --seeds $SEEDS \
    --dataset-config-file "configs/datasets/$1.yaml" --config-file "configs/trainers/LP/$2_val.yaml" $OPTS
