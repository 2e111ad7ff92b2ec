# shellcheck shell=bash
# Sourced by the load tests, in the folder of them: the binary, and what else they need.

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need COMMAND PACKAGE: installs the Debian package unless there is the command.
need() {
  PATH=$PATH:/usr/sbin command -v "$1" >/dev/null && return
  if ! command -v apt-get >/dev/null || ! as_root true 2>/dev/null; then
    echo "load-tests: \`$1\` is missing; on Debian and Ubuntu it is in the package $2" >&2
    exit 1
  fi
  echo "load-tests: installing $2"
  # The tests run a server of their own: none is to be started on the way.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    trap 'as_root rm -f '$policy EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
  fi
  as_root apt-get update -qq </dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" </dev/null
}

# measure NAME SECONDS: runs lib/NAME.py, for SECONDS at most; then it is ended, with all that it started.
measure() {
  PYTHONDONTWRITEBYTECODE=1 timeout --foreground --kill-after=30 "$2" python3 "lib/$1.py"
}

need python3 python3
need nginx nginx-light

if [ -z "${EDGE_BIN:-}" ]; then
  EDGE_BIN=../target/release/requestrocket-edge
  [ -x $EDGE_BIN ] || make -C .. --no-print-directory build
elif [[ $EDGE_BIN != /* ]]; then
  EDGE_BIN=$OLDPWD/$EDGE_BIN # as the caller sees it
fi
export EDGE_BIN
# Hundreds of connections, and as many to the target.
ulimit -S -n 4096 2>/dev/null || true
