#!/bin/sh
# Every benchmark once, on the GPU if there is one, into one JSON file: sh benchmarks/gpu.sh OUT.json
set -e
cd "$(dirname "$0")/.."
[ $# -eq 1 ] || { echo "usage: sh benchmarks/gpu.sh OUT.json" >&2; exit 2; }
PYTHON=${PYTHON:-python}
[ -x .venv/bin/python ] && [ "$PYTHON" = python ] && PYTHON=.venv/bin/python
PLACE=$(mktemp -d)
trap 'rm -rf "$PLACE"' EXIT
for NAME in text_encoder train_step cocoop evaluate sweep; do
    echo "== $NAME"
    "$PYTHON" -m "benchmarks.$NAME" --json "$PLACE/$NAME.json"
done
"$PYTHON" - "$PLACE" "$1" <<'JOIN'
import json, os, sys
place, out = sys.argv[1:]
found = {name[:-5]: json.load(open(os.path.join(place, name))) for name in sorted(os.listdir(place))}
with open(out + ".part", "w") as f:
    json.dump(found, f, indent=2)
os.replace(out + ".part", out)
JOIN
echo "Written to $1"
