#!/bin/sh
# The results table: METHODS (as the table names them) with SHOTS and SEEDS, then the table and, in the folder of the
# dataset's runs, its chart. What is finished is not run again, so the same call goes on after a stop. Where a run is
# refused or fails, the others go on, and the status is 1.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
status=0
(run --all-rows "DATASET CFG" -- "$@") || status=$?
[ "$status" -le 1 ] || exit "$status"
"$PYTHON" parse_test_res.py --table "$OUTPUT/$1" --format github --chart "$OUTPUT/$1/accuracy.png"
exit "$status"
