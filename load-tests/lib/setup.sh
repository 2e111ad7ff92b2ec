# shellcheck shell=bash
# Sourced by the load tests: the binary, and what else they need.

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need COMMAND PACKAGE: installs the Debian package unless there is the command.
need() {
  local path=$PATH:/usr/sbin policy=/usr/sbin/policy-rc.d
  PATH=$path command -v "$1" >/dev/null && return
  if ! command -v apt-get >/dev/null; then
    echo "load-tests: \`$1\` is missing; on Debian and Ubuntu it is in the package $2" >&2
    exit 1
  fi
  echo "load-tests: installing $2"
  # No service is started on the way: the tests run a server of their own.
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null && as_root chmod 755 $policy && made=1; }
  as_root apt-get update -qq </dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" </dev/null
  [ "${made:-}" != 1 ] || as_root rm -f $policy
}

need python3 python3
need nginx nginx-light

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ -z "${EDGE_BIN:-}" ]; then
  EDGE_BIN=$root/target/release/requestrocket-edge
  [ -x "$EDGE_BIN" ] || make -C "$root" --no-print-directory build
fi
export EDGE_BIN
# Hundreds of connections and as many to the target.
ulimit -n 4096 2>/dev/null || true
