#!/usr/bin/env bash
# What the edge costs beside bare Pingora, nginx, nginx with Lua, HAProxy and Caddy. Twenty minutes; README.md has the method.
#
#   BENCH_SCENARIOS=small_get,latency BENCH_ROUNDS=1 BENCH_SECONDS=1 load-tests/bench/run.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
. lib/setup.sh
wanted() { [[ -z ${BENCH_PEERS:-} || ,$BENCH_PEERS, == *,$1,* ]]; }
! wanted haproxy || need haproxy haproxy
! wanted caddy || need caddy caddy
need wrk wrk
need h2load nghttp2-client
need openssl openssl
! wanted nginx-lua || [ -e /usr/lib/nginx/modules/ngx_http_lua_module.so ] || install_package libnginx-mod-http-lua ngx_http_lua_module.so

# Bare Pingora and the client, of the edge's lockfile and profile.
if [ -z "${BENCH_BIN:-}" ]; then
  BENCH_BIN=${CARGO_TARGET_DIR:-../target}/release/examples
  cargo build --locked --release --example passthrough --example bench-client
elif [[ $BENCH_BIN != /* ]]; then
  BENCH_BIN=$OLDPWD/$BENCH_BIN # as the caller sees it
fi
export BENCH_BIN
# 10,000 idle clients, and as many on the other side.
ulimit -S -n "$(ulimit -H -n)"
PYTHONPATH=lib PYTHONDONTWRITEBYTECODE=1 timeout --foreground --kill-after=30 3600 python3 bench/bench.py
