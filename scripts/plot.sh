#!/bin/sh
# PLOT: several contexts per task, matched with the places of an image by optimal transport.
set -e
cd "$(dirname "$0")"
. ./method.sh
run_method PLOT "$@"
