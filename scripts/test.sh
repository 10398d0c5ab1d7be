#!/usr/bin/env bash
# All tests. Those that need a database or two run beside those of the whole stack, which mostly wait.
set -euo pipefail
pytest=$1

"$pytest" tests/unit
told=$(mktemp)
"$pytest" tests/integration >"$told" 2>&1 &
beside=$!
trap 'kill "$beside" 2>/dev/null || true; rm -f "$told"' EXIT

status=0
"$pytest" tests/system || status=$?
wait "$beside" || status=$?
cat "$told"
exit "$status"
