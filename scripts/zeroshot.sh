#!/bin/sh
# Zero-shot CLIP on one task of a suite; TASK is its number, or all. TRAINER: ZeroshotCLIP, or ZeroshotCLIP2 (ensemble).
set -e
cd "$(dirname "$0")"
. ./set_env.sh
run --trainer ZeroshotCLIP "DATASET CFG TASK [TRAINER]" -- "$@"
