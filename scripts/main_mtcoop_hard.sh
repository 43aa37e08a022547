#!/bin/sh
# CoOp on many tasks: a context for all classes (CSC False, TSC False), per task (TSC True) or per class (CSC True).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer MTCoOpHard "DATASET CFG SHOTS OPTIONS" -- "$@"
