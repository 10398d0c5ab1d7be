#!/usr/bin/env bash
# All tests; those of the whole stack mostly wait, so two files of them run at once, each on a stack of its own.
set -euo pipefail
pytest=$1

# Servers that live for seconds are hardly worth compiling: two fifths of what they take is saved.
export JAVA_TOOL_OPTIONS="${JAVA_TOOL_OPTIONS:--XX:TieredStopAtLevel=1 -XX:+UseSerialGC}"

"$pytest" tests/unit
"$pytest" tests/system tests/integration --numprocesses 2 --dist loadfile
