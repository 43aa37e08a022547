#!/bin/sh
# SoftCPT trained on the base classes of every task.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOp "DATASET CFG SHOTS OPTIONS" --classes base --place base2new/train_base -- "$@"
