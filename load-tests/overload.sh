#!/usr/bin/env bash
# Three times as many requests as it may have under way: the rest is refused at once, and a second after it nothing is. A minute.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
measure overload 180
