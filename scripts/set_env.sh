# Sourced by the other scripts. Set the variables here, or in the environment.

DATA=${DATA:-data}        # folder of the datasets (--root)
OUTPUT=${OUTPUT:-output}  # folder of the runs
PYTHON=${PYTHON:-python}  # the interpreter of the environment with requirements.txt
SEEDS=${SEEDS:-1 2 3}     # of the methods that train
SHOTS=${SHOTS:-1 2 4 8 16}  # of linearprob.sh and all_methods.sh
METHODS=${METHODS:-}      # of all_methods.sh; empty: those of the published table
OPTS=${OPTS:-}            # config overrides for every run, such as "DATALOADER.NUM_WORKERS 2"

cd ..
ROOT=$(pwd)
[ -x "$ROOT/.venv/bin/python" ] && [ "$PYTHON" = python ] && PYTHON="$ROOT/.venv/bin/python"

# usage TEXT NUMBER "$@": stop with TEXT unless the script got NUMBER arguments.
usage() {
    usage_text=$1
    usage_wanted=$2
    shift 2
    if [ $# -ne "$usage_wanted" ]; then
        echo "usage: sh $(basename "$0") $usage_text" >&2
        exit 2
    fi
}

# need_finished DIR SCRIPT: stop unless the run DIR, which SCRIPT makes, is finished.
need_finished() {
    if [ ! -f "$1/results.json" ]; then
        echo "error: $1 is not finished: run $2 with the same arguments first" >&2
        exit 1
    fi
}

# run DIR ARGUMENT...: one run of train.py into DIR. A finished one prints its result, an unfinished one is resumed.
run() {
    run_dir=$1
    shift
    echo "Running $run_dir"
    # shellcheck disable=SC2086 # OPTS are words
    "$PYTHON" train.py --root "$DATA" --output-dir "$run_dir" "$@" $OPTS
}
