#!/bin/sh
# Zero-shot, CoOp (one context for all tasks, one per task) and SoftCPT-NATA on Outfits16 with the tiny backbone.
# Everything goes to output/demo, each run's log to its log.txt; a second call prints the table again.
set -e
cd "$(dirname "$0")"
OUTPUT=${OUTPUT:-output/demo}
export OUTPUT
. ./set_env.sh

# Runs this short are done fastest with one thread each.
OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} "$PYTHON" sweep.py outfits16 tiny_ep100 \
    --methods ZS-CLIP CoOp-MT CoOp-CA SoftCPT-NATA --shots 1 2 4 --opts TEST.SAVE_PREDICTIONS True
"$PYTHON" report.py "$OUTPUT" "$OUTPUT/report.html"
echo "Sixteen tasks ask for the colour, pattern, length or width of one garment: a context for all of them (CoOp-MT) can't
say which, a context of each (CoOp-CA) learns it from that task's few images, SoftCPT from all tasks and their names."
