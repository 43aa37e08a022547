#!/bin/sh
# SoftCPT with class-level contexts, trained on a sample of the negative classes in every step.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOp "DATASET CFG SHOTS OPTIONS CLS_SAMPLE_RATE" -- "$@"
