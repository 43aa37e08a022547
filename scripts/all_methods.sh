#!/bin/sh
# The results table: METHODS (as the table names them) with SHOTS and SEEDS, then the table and, in the folder of the
# dataset's runs, its chart. What is finished is not run again, so the same call goes on after a stop.
set -e
cd "$(dirname "$0")"
. ./set_env.sh
usage "DATASET CFG" 2 2 "$@"
export DATA OUTPUT PYTHON SEEDS SHOTS OPTS

case $1$2 in
    *[[:space:]]*) stop 2 "error: DATASET and CFG are '$1' and '$2', but must be names without blanks" ;;
esac

# Every method says itself how it is run: lines of LABEL|command in scripts/.
# shellcheck disable=SC2086 # SHOTS and METHODS are words
COMMANDS=$("$PYTHON" -m trainers "$1" "$2" --shots $SHOTS --methods $METHODS)
LAST=
printf '%s\n' "$COMMANDS" | while IFS='|' read -r LABEL COMMAND; do
    [ "$LABEL" = "$LAST" ] || printf '== %s\n' "$LABEL"
    LAST=$LABEL
    # shellcheck disable=SC2086 # the command is words
    (cd scripts && sh $COMMAND) < /dev/null
done

"$PYTHON" parse_test_res.py --table "$OUTPUT/$1" --format github --chart "$OUTPUT/$1/accuracy.png"
