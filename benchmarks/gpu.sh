#!/bin/sh
# The tests that need a GPU, then every benchmark once, into one JSON file: sh benchmarks/gpu.sh OUT.json
# What fails, such as a way that does not fit the GPU's memory, is named at the end; the file holds the rest.
# It needs PyTorch, torchvision and the pure Python packages of requirements.txt; neither Ray nor ONNX.
set -e
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "usage: sh benchmarks/gpu.sh OUT.json" >&2; exit 2; }
PYTHON=${PYTHON:-python}
[ -x .venv/bin/python ] && [ "$PYTHON" = python ] && PYTHON=.venv/bin/python
FAILED=""
PLACE=$(mktemp -d)
trap 'rm -rf "$PLACE"' EXIT
"$PYTHON" -m pytest -q -n "${TEST_PROCESSES:-8}" --dist load -m gpu tests/test_gpu.py tests/test_clip.py ||
    FAILED=" tests"

bench() {  # NAME OF_FILE OPTIONS
    NAME=$1 FILE=$2
    shift 2
    echo "== $NAME $*"
    "$PYTHON" -m "benchmarks.$NAME" --json "$PLACE/$FILE.json" "$@" || FAILED="$FAILED $FILE"
}
bench text_encoder text_encoder --cases nata:6:116
for PRECISION in fp16 fp32; do
    bench train_step "train_step_$PRECISION" --cases nata:6:116,nata:10:1191 --precision "$PRECISION"
done
bench tower_step tower_step --cases VPT,MaPLe,PromptSRC,TCP
bench images images --cases 74:4:3 --arch RN50-quickgelu --random 1 --size 224 --precision fp16
"$PYTHON" - "$PLACE" "$1" <<'JOIN'
import json, os, sys
place, out = sys.argv[1:]
found = {name[:-5]: json.load(open(os.path.join(place, name))) for name in sorted(os.listdir(place))}
with open(out + ".part", "w") as f:
    json.dump(found, f, indent=2)
os.replace(out + ".part", out)
JOIN
echo "Written to $1"
[ -z "$FAILED" ] || { echo "failed:$FAILED" >&2; exit 1; }
