#!/bin/sh
# Linear probe on tasks 0 to MAX_TASK of a suite, or on all: a run for each of SHOTS and SEEDS.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer LinearProbe "DATASET CFG MAX_TASK" -- "$@"
