#!/usr/bin/env bash
# What a TLS listener offers to clients, as sslscan finds it: nothing below TLS 1.2, no weak cipher, no known hole.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
# shellcheck source=/dev/null
. lib/setup.sh
need openssl openssl
need sslscan sslscan
measure tls 120
