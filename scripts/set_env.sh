# shellcheck shell=sh
# Sourced by the other scripts. Set the variables here, or in the environment.

export DATA="${DATA:-data}"           # folder of the datasets (--root)
export OUTPUT="${OUTPUT:-output}"     # folder of the runs
export SEEDS="${SEEDS:-1 2 3}"        # of the methods that train
export SHOTS="${SHOTS:-1 2 4 8 16}"   # of linearprob.sh and all_methods.sh
export METHODS="${METHODS:-}"         # of all_methods.sh, or all; empty: those of the published table
export OPTS="${OPTS:-}"               # config overrides for every run, such as "DATALOADER.NUM_WORKERS 2"
export PYTHON="${PYTHON:-python}"     # the interpreter of the environment with requirements.txt

cd ..
[ -x .venv/bin/python ] && [ "$PYTHON" = python ] && PYTHON=$PWD/.venv/bin/python

# run FLAG... USAGE -- WORD...: the runs that a script's words ask for, instead of the rest of the script.
run() {
    exec "$PYTHON" -m trainers run --script "${0##*/}" "$@"
}
