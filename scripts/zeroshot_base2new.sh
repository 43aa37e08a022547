#!/bin/sh
# Zero-shot CLIP on the base or new classes (CLASSES) of one task of a suite; TASK is its number, or all.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer ZeroshotCLIP "DATASET CFG TASK CLASSES" --place "base2new/zeroshot_{CLASSES}" -- "$@"
