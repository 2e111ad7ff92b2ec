#!/usr/bin/env bash
# What can be said of the Debian package without building it. scripts/check-deb.sh builds it and tries it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() { echo "package: $*" >&2 && exit 1; }

version=$(awk -F '"' '/^version/ { print $2; exit }' Cargo.toml)
latest=$(sed -nE '1s/^requestrocket-edge \((.*)\).*/\1/p' debian/changelog)
[ "${latest%-*}" = "$version" ] || fail "debian/changelog begins with \`$latest\`, Cargo.toml says \`$version\`"

for script in debian/postinst debian/postrm; do
  sh -n "$script"
  grep -qx '#DEBHELPER#' "$script" || fail "$script lacks #DEBHELPER#"
done

# cargo-deb is not needed to see whether the files are there that it would take.
cargo metadata --locked --format-version 1 --no-deps | python3 -c '
import glob, json, sys
(package,) = json.load(sys.stdin)["packages"]
sources = [source for source, *_ in package["metadata"]["deb"]["assets"] if not source.startswith("target/")]
missing = [source for source in sources if not glob.glob(source, recursive=True)]
sys.exit("package: these assets are missing: " + ", ".join(missing) if missing else 0)
'

# The configuration that it installs holds as it is, beside the empty folder that it names.
installed=$(mktemp -d)
trap 'rm -rf "$installed"' EXIT
cp debian/edge.yaml "$installed/"
mkdir "$installed/proxies.d"
cargo run --quiet --locked -- check -c "$installed/edge.yaml"
echo "package: $latest"
