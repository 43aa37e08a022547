#!/bin/sh
# SoftCPT trained by main_mtcoop.sh, tested on tasks that it need not have seen, whose contexts it makes from their names:
# TASKS of the dataset TARGET (all, or a list such as task0,task3).
set -e
cd "$(dirname "$0")"
. ./mtcoop_options.sh
. ./set_env.sh
usage "$MTCOOP_USAGE TARGET TASKS" 13 13 "$@"

TARGET=${12}
TASKS=${13}
FROM="$OUTPUT/$1/MTCoOp/$(mtcoop_dir "$@")"
TO="$OUTPUT/$1/transfer/${TARGET}_$TASKS/MTCoOp/$(mtcoop_dir "$@")"
shift
for SEED in $SEEDS; do
    need_finished "$FROM/seed$SEED" main_mtcoop.sh
    run_mtcoop "$TO/seed$SEED" "$TARGET" "$@" -- --seed "$SEED" --eval-only --model-dir "$FROM/seed$SEED" \
        DATASET.SUBSAMPLE_TASKS "$TASKS"
done
