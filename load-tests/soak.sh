#!/usr/bin/env bash
# Everything at once for SOAK_MINUTES, by default 30: each answer is verified, memory, descriptors and threads stay.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
need openssl openssl
measure soak $((${SOAK_MINUTES:-30} * 60 + 300)) # whole minutes
