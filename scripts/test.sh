#!/usr/bin/env bash
# All tests; those of the whole stack mostly wait, so two files of them run at once, each on a stack of its own.
# The longest files come first, for neither process to be left alone with one: those of the whole stack.
set -euo pipefail
pytest=$1

"$pytest" tests/unit
"$pytest" tests/system tests/integration --numprocesses 2 --dist loadfile --no-loadscope-reorder
