#!/usr/bin/env bash
# Clients that are slow on purpose, and 10,000 that are idle: when they are ended, what they cost, who notices. Five minutes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
need openssl openssl
need slowhttptest slowhttptest
measure slow 600
