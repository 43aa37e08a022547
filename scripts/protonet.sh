#!/bin/sh
# ProtoNet: nearest class mean of image features, or of an embedding learned on episodes (TRAINER.PROTONET.DIM).
set -e
cd "$(dirname "$0")"
. ./method.sh
run_method ProtoNet "$@"
