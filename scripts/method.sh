#!/bin/sh
# A method whose options come from the config, such as KgCoOp, ProGrad, CoCoOp, PLOT or ProtoNet; KEY VALUE pairs change
# them.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run "TRAINER DATASET CFG SHOTS [KEY VALUE ...]" -- "$@"
