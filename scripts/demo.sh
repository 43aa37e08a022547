#!/bin/sh
# Zero-shot, CoOp (shared, per task) and SoftCPT-NATA on Outfits16 with the tiny backbone, 8 shots, 3 seeds.
# Everything goes to output/demo: a second call only prints the table again.
set -e
cd "$(dirname "$0")"
OUTPUT=${OUTPUT:-output/demo}
export OUTPUT

sh zeroshot.sh outfits16 tiny all
sh main_mtcoop_hard.sh outfits16 tiny_ep50 8 16 False False
sh main_mtcoop_hard.sh outfits16 tiny_ep50 8 16 False True
sh main_mtcoop.sh outfits16 tiny_ep50 8 0 False 4 False 16 False lin 1

. ./set_env.sh
"$PYTHON" parse_test_res.py --table "$OUTPUT/outfits16" --format github --chart "$OUTPUT/accuracy.png"
