# shellcheck shell=sh disable=SC2034 # variables of the scripts that source it
# Sourced by the other scripts. Set the variables here, or in the environment.

DATA=${DATA:-data}        # folder of the datasets (--root)
OUTPUT=${OUTPUT:-output}  # folder of the runs
PYTHON=${PYTHON:-python}  # the interpreter of the environment with requirements.txt
SEEDS=${SEEDS:-1 2 3}     # of the methods that train
SHOTS=${SHOTS:-1 2 4 8 16}  # of linearprob.sh and all_methods.sh
METHODS=${METHODS:-}      # of all_methods.sh; empty: those of the published table
OPTS=${OPTS:-}            # config overrides for every run, such as "DATALOADER.NUM_WORKERS 2"

set -f  # SEEDS, SHOTS, METHODS and OPTS are split into words, in which a * is no pattern
cd ..
ROOT=$(pwd)
[ -x "$ROOT/.venv/bin/python" ] && [ "$PYTHON" = python ] && PYTHON="$ROOT/.venv/bin/python"

# stop STATUS TEXT
stop() {
    printf '%s' "$2" | tr '\n' ' ' >&2
    echo >&2
    exit "$1"
}

# usage TEXT LEAST MOST "$@": stop with TEXT unless the script got LEAST to MOST arguments, which can't be taken for
# options, and whose SHOTS are a number.
usage() {
    usage_text=$1
    usage_least=$2
    usage_most=$3
    shift 3
    if [ $# -lt "$usage_least" ] || [ $# -gt "$usage_most" ]; then
        stop 2 "usage: sh ${0##*/} $usage_text"
    fi
    need_no_options "an argument of ${0##*/}" "$@"
    for usage_name in $usage_text; do
        [ "$usage_name" != SHOTS ] || need_numbers SHOTS "$1"
        [ $# -eq 0 ] || shift
    done
}

# need_no_options NAME WORD...: stop if a word could be taken for an option, or has several lines.
need_no_options() {
    need_name=$1
    shift
    for need_word in "$@"; do
        case $need_word in
            - | -[!0-9.]* | *"
"*) stop 2 "error: $need_name is '$need_word', but must not begin with - or have several lines" ;;
        esac
    done
}

# need_numbers NAME WORD...: stop unless the words are whole numbers, at least one.
need_numbers() {
    need_name=$1
    shift
    [ $# -gt 0 ] || stop 2 "error: $need_name is blank, but must have a number"
    for need_word in "$@"; do
        case ${need_word#-} in
            "" | *[!0-9]*) stop 2 "error: $need_name has '$need_word', but must be whole numbers" ;;
        esac
    done
}

need_no_options DATA "$DATA"
need_no_options OUTPUT "$OUTPUT"
need_no_options PYTHON "$PYTHON"
# shellcheck disable=SC2086 # words
{
    need_numbers SEEDS $SEEDS
    need_numbers SHOTS $SHOTS
    need_no_options METHODS $METHODS
    need_no_options OPTS $OPTS
}

# need_finished DIR SCRIPT: stop unless the run DIR, which SCRIPT makes, is finished.
need_finished() {
    [ -f "$1/results.json" ] || stop 1 "error: $1 is not finished: run $2 with the same arguments first"
}

# run DIR ARGUMENT...: one run of train.py into DIR. A finished one prints its result, an unfinished one is resumed.
run() {
    run_dir=$1
    shift
    printf 'Running %s\n' "$run_dir"
    # shellcheck disable=SC2086 # OPTS are words
    "$PYTHON" train.py --root "$DATA" --output-dir "$run_dir" "$@" $OPTS
}
