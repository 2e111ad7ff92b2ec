#!/usr/bin/env bash
# Writes what is in the binary: target/sbom.cdx.json, a CycloneDX bill of materials of all crates that are linked into it or
# that build it, with versions, digests and licences, from Cargo.lock.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# It writes beside Cargo.toml, whatever it is told; and names the folder that it was run in, which is nobody's business.
trap 'rm -f sbom.json' EXIT
cargo cyclonedx --quiet --format json --spec-version 1.5 --override-filename sbom
mkdir -p target
sed "s|path+file://$PWD|path+file:///requestrocket-edge|g" sbom.json >target/sbom.cdx.json

python3 - target/sbom.cdx.json <<'PYTHON'
import json, sys
bill = json.load(open(sys.argv[1]))
locked = sum(line.startswith("name = ") for line in open("Cargo.lock"))
crates = bill["components"]
unnamed = [crate["name"] for crate in crates if not crate.get("licenses") or not crate.get("hashes")]
if unnamed or not 0 < len(crates) < locked:
    sys.exit(f"{len(crates)} crates of {locked} in Cargo.lock; without licence or digest: {unnamed}")
print(f"{sys.argv[1]}: {len(crates)} crates")
PYTHON
