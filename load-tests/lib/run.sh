#!/usr/bin/env bash
# Runs one load test: run.sh NAME SECONDS. After SECONDS it is ended, and whatever it started with it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
name=$1 seconds=$2

export EDGE_BIN=${EDGE_BIN:-target/release/requestrocket-edge}
[ -x "$EDGE_BIN" ] || { echo "$name: no $EDGE_BIN: \`make build\` makes it, EDGE_BIN names another" >&2 && exit 1; }
command -v python3 >/dev/null || { echo "$name: needs python3" >&2 && exit 1; }
command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] || { echo "$name: needs nginx" >&2 && exit 1; }

export PYTHONDONTWRITEBYTECODE=1
exec timeout --foreground --kill-after=30 "$seconds" python3 "load-tests/lib/$name.py"
