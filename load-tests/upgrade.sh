#!/usr/bin/env bash
# Ten upgrades of the binary under load, with two successors that fail in between: no request fails. Two minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
measure upgrade 300
