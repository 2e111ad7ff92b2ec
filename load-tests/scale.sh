#!/usr/bin/env bash
# 100,000 proxies in 1,000 fragments: cold start, memory, and how soon a changed fragment serves. A minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
measure scale 300
