#!/bin/sh
# KgCoOp: a context per task whose class features stay near those of the zero-shot prompts.
set -e
cd "$(dirname "$0")"
. ./method.sh
run_method KgCoOp "$@"
