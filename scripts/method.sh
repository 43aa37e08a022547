#!/bin/sh
# A method whose options come from the config, such as KgCoOp, ProGrad, CoCoOp, PLOT or ProtoNet; KEY VALUE pairs change
# them.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "TRAINER DATASET CFG SHOTS [KEY VALUE ...]" 4 $# "$@"

METHOD=$1
shift
FOLDER=$OUTPUT/$1/$METHOD/$2_$3shots
DATASET=$1
CFG=$2
N=$3
shift 3
for SEED in $SEEDS; do
    run "$FOLDER/seed$SEED" --trainer "$METHOD" --seed "$SEED" \
        --dataset-config-file "configs/datasets/$DATASET.yaml" --config-file "configs/trainers/$CFG.yaml" \
        DATASET.NUM_SHOTS "$N" "$@"
done
