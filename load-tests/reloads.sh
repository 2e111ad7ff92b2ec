#!/usr/bin/env bash
# 1,000 reloads in a row under load: no request fails, memory and descriptors stay. Three minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
measure reloads 900
