#!/bin/sh
# Zero-shot, CoOp (shared, per task) and SoftCPT-NATA on Shapes8 with the tiny backbone, 8 shots, 3 seeds.
# Everything goes to output/demo: a second call only prints the table again.
set -e
cd "$(dirname "$0")"
OUTPUT=${OUTPUT:-output/demo}
export OUTPUT

sh zeroshot.sh shapes8 tiny all
sh main_mtcoop_hard.sh shapes8 tiny_ep50 8 16 False False
sh main_mtcoop_hard.sh shapes8 tiny_ep50 8 16 False True
sh main_mtcoop.sh shapes8 tiny_ep50 8 0 False 4 False 16 False lin 1

. ./set_env.sh
"$PYTHON" parse_test_res.py --table "$OUTPUT/shapes8" --format github --chart "$OUTPUT/accuracy.png"
