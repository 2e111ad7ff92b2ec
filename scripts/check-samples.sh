#!/usr/bin/env bash
# Loads every sample configuration with the real binary, and validates its files against the schemas that the binary prints. Secrets that the samples name are filled with placeholders.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shopt -s nullglob

placeholder="placeholder-that-is-long-enough-for-any-algorithm-0123456789abcdef"

CREDENTIALS_DIRECTORY=$(mktemp -d)
export CREDENTIALS_DIRECTORY
trap 'rm -rf "$CREDENTIALS_DIRECTORY"' EXIT

# names KEY: what the samples say after `KEY:`, one a line. `_` before it is another key (`jwks_file:`).
names() {
  grep -rhoE --include='*.yaml' "(^|[ {])$1: *\"?[A-Za-z0-9_./-]+" conf | sed -E "s/^.*$1: *\"?//" | sort -u
}

for variable in $(names env); do
  [ -n "${!variable:-}" ] || export "$variable=$placeholder"
done
for file in $(names file); do
  case $file in /*) continue ;; esac
  mkdir -p "$(dirname "$CREDENTIALS_DIRECTORY/$file")"
  echo "$placeholder" >"$CREDENTIALS_DIRECTORY/$file"
done

samples=(conf/*.yaml)
if [ ${#samples[@]} -eq 0 ]; then
  echo "samples: there is none in conf/" >&2
  exit 1
fi
for sample in "${samples[@]}"; do
  echo "samples: $sample"
  cargo run --quiet --locked -- check -c "$sample"
done

schemas=$(mktemp -d)
trap 'rm -rf "$CREDENTIALS_DIRECTORY" "$schemas"' EXIT
cargo run --quiet --locked -- schema >"$schemas/main.json"
cargo run --quiet --locked -- schema --fragment >"$schemas/fragment.json"
checker=target/check-jsonschema/bin/check-jsonschema
[ -x $checker ] || { echo "samples: $checker is missing; scripts/setup.sh ci installs it" >&2 && exit 1; }
fragments=(conf/*.d/*.yaml)
$checker --check-metaschema "$schemas"/*.json
$checker --schemafile "$schemas/main.json" "${samples[@]}"
if [ ${#fragments[@]} -gt 0 ]; then
  $checker --schemafile "$schemas/fragment.json" "${fragments[@]}"
fi
