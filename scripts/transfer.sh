#!/bin/sh
# SoftCPT trained by main_mtcoop.sh, tested on tasks that it need not have seen, whose contexts it makes from their
# names: TASKS of the dataset TARGET (all, or a list such as task0,task3).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOp "DATASET CFG SHOTS OPTIONS TARGET TASKS" --place "transfer/{TARGET}_{TASKS}" \
    --trained "" main_mtcoop.sh -- "$@"
