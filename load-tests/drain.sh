#!/usr/bin/env bash
# TERM under load, without and with a lead time: every request is answered, the end comes with the last. A minute and a half.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
measure drain 300
