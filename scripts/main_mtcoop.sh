#!/bin/sh
# SoftCPT: NATA, NATS (TASK_CSC True) and, with CSC True, CATA, CSTA (CLASS_CSC True), CATS, CSTS.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOp "DATASET CFG SHOTS OPTIONS" -- "$@"
