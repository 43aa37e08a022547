#!/bin/sh
# ProGrad: a context per task, updated only where that does not oppose the zero-shot prediction.
set -e
cd "$(dirname "$0")"
. ./method.sh
run_method ProGrad "$@"
