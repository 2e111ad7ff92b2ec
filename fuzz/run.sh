#!/usr/bin/env bash
# Fuzzes one target for a while, from its committed corpus on: fuzz/run.sh path 1200
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

target=${1:-} seconds=${2:-60}

fail() { echo "fuzz: $*" >&2 && exit 1; }

[ -f "fuzz_targets/$target.rs" ] || fail "\`$target\` is no target; there are $(basename -s .rs fuzz_targets/*.rs | xargs)"
command -v c++ >/dev/null || fail "a C++ compiler is missing, for libFuzzer; on Debian or Ubuntu: sudo apt-get install g++"
command -v python3 >/dev/null || fail "python3 is missing; on Debian or Ubuntu: sudo apt-get install python3"
cargo fuzz --version >/dev/null 2>&1 || fail "cargo-fuzz is missing; install it with: cargo install --locked cargo-fuzz"

./corpus.py unpack "$target"
# No sanitizer: there is no unsafe code to watch, it would halve the speed, and it takes a nightly compiler.
cargo fuzz run --sanitizer none "$target" -- "-dict=dictionaries/$target.dict" "-max_total_time=$seconds" \
  -max_len=4096 -timeout=10 -rss_limit_mb=4096 -print_final_stats=1
