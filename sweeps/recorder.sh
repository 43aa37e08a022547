#!/bin/sh
# Stands for Python where the scripts are asked what they would call: its arguments, a line each, and then an end mark.
printf '%s\n' "$@" '===' >&2
