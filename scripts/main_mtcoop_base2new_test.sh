#!/bin/sh
# SoftCPT trained on the base classes (main_mtcoop_base2new_train.sh), tested on the new ones.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOp "DATASET CFG SHOTS OPTIONS" --classes new --place base2new/test_new \
    --trained base2new/train_base main_mtcoop_base2new_train.sh -- "$@"
