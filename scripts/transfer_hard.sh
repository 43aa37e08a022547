#!/bin/sh
# CoOp trained by main_mtcoop_hard.sh, its context tested on tasks that it need not have seen: TASKS of the dataset
# TARGET (all, or a list such as task0,task3).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOpHard "DATASET CFG SHOTS OPTIONS TARGET TASKS" --place "transfer/{TARGET}_{TASKS}" \
    --trained "" main_mtcoop_hard.sh -- "$@"
