#!/bin/sh
# CoCoOp: a context per task that depends on the image.
set -e
cd "$(dirname "$0")"
. ./method.sh
run_method CoCoOp "$@"
