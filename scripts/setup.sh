#!/usr/bin/env bash
# Installs what the project needs beside Rust and does not find:
#
#   scripts/setup.sh build    to build and run
#   scripts/setup.sh test     the same, and to run all tests
#   scripts/setup.sh ci       the same, and for `make ci`
#   scripts/setup.sh deb      to build, and to pack the Debian package
#   scripts/setup.sh sbom     to build, and to list what is in the binary
#
# Says nothing when nothing is missing. Without apt-get or the right to use it: says what to install, and fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

purpose=${1:-build}
case $purpose in
  build | test | ci | deb | sbom) ;;
  *) echo "setup: \`$purpose\` is none of build, test, ci, deb, sbom" >&2 && exit 64 ;;
esac

command_exists() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps it in /usr/sbin, which is not on everybody's PATH.
nginx_exists() { command_exists nginx || [ -x /usr/sbin/nginx ]; }

# `fetch` came with Node 18.
node_fetches() { command_exists node && node -e 'process.exit(typeof fetch === "function" ? 0 : 1)'; }

# A python3 earlier on the PATH may not see what the system's package manager installed.
python_requests() {
  local python
  for python in python3 /usr/bin/python3; do
    "$python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("requests") is None)' 2>/dev/null && return
  done
  return 1
}

checker=target/check-jsonschema

# A validator of JSON Schemas that is not ours, in a place of its own: it is nobody else's business.
checker_exists() { [ -x $checker/bin/check-jsonschema ]; }

python_venv() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# Running a single source file takes the compiler too, so a mere JRE will not do.
jdk_exists() { command_exists java && command_exists javac; }

# Prints the Debian packages of what is missing, one a line.
missing() {
  command_exists cc || printf '%s\n' gcc libc6-dev
  command_exists make || echo make
  command_exists cmake || echo cmake
  command_exists pkg-config || echo pkg-config
  [ "$purpose" = build ] && return

  if [ "$purpose" = deb ]; then
    command_exists dpkg-shlibdeps || echo dpkg-dev
    return
  fi

  if [ "$purpose" = sbom ]; then
    command_exists python3 || echo python3
    return
  fi

  command_exists curl || echo curl
  nginx_exists || echo nginx-light
  node_fetches || echo nodejs
  python_requests || printf '%s\n' python3 python3-requests
  jdk_exists || echo default-jdk-headless
  command_exists promtool || echo prometheus
  [ "$purpose" = test ] && return

  checker_exists || python_venv || printf '%s\n' python3 python3-venv
  if compgen -G 'systemd/*.service' >/dev/null; then
    command_exists systemd-analyze || echo systemd
  fi
}

as_root() {
  if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
  command_exists apt-get && { [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null; }
}

# Installs packages without starting the services in them: the tests run an nginx of their own, and take only `promtool`
# of prometheus. Nobody who types `make test` asked for a server on port 80 or 9090.
install() {
  local policy=/usr/sbin/policy-rc.d service new_services=()
  nginx_exists || new_services+=(nginx)
  command_exists promtool || new_services+=(prometheus)
  if [ ! -e $policy ]; then
    trap 'as_root rm -f '$policy EXIT
    printf '#!/bin/sh\nexit 101\n' | as_root tee $policy >/dev/null
    as_root chmod 755 $policy
  fi
  as_root mkdir -p /usr/share/man/man1 # slim images lack it, and a JDK package fails over that
  as_root apt-get update -qq </dev/null
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null
  [ -d /run/systemd/system ] || return 0
  for service in "${new_services[@]}"; do
    if systemctl cat "$service" >/dev/null 2>&1; then
      as_root systemctl disable --quiet "$service"
    fi
  done
}

mapfile -t packages < <(missing)
if [ ${#packages[@]} -gt 0 ]; then
  if ! may_install; then
    echo "setup: these are missing: ${packages[*]}" >&2
    echo "setup: on Debian or Ubuntu: sudo apt-get install --no-install-recommends ${packages[*]}" >&2
    echo "setup: elsewhere: install what carries these names there; Node must be 18 or newer" >&2
    exit 1
  fi
  echo "setup: installing ${packages[*]}"
  install "${packages[@]}"
  mapfile -t packages < <(missing)
  if [ ${#packages[@]} -gt 0 ]; then
    echo "setup: still missing after installing, or too old: ${packages[*]}" >&2
    exit 1
  fi
fi

if [ "$purpose" = ci ]; then
  cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
  # Unoptimised: it is built once and runs for seconds.
  cargo deny --version >/dev/null 2>&1 || cargo install --locked --debug cargo-deny
  if ! checker_exists; then
    python3 -m venv $checker
    $checker/bin/pip install --quiet --disable-pip-version-check "check-jsonschema==0.39.0"
  fi
fi

if [ "$purpose" = deb ]; then
  # Of one version: another one may write other maintainer scripts.
  cargo_deb=3.8.0
  [ "$(cargo deb --version 2>/dev/null)" = "cargo-deb $cargo_deb" ] ||
    cargo install --locked --debug cargo-deb --version "=$cargo_deb"
fi

if [ "$purpose" = sbom ]; then
  cargo cyclonedx --version >/dev/null 2>&1 || cargo install --locked --debug cargo-cyclonedx
fi
