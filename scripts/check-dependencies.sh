#!/usr/bin/env bash
# Licences, bans and sources of all dependencies as deny.toml has them; advisories where their database can be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cargo deny --locked check --hide-inclusion-graph licenses bans sources

# The database is a git repository on the internet, which not every machine may reach. That must not look like a finding,
# nor a finding like that.
if timeout 120 cargo deny fetch db >/dev/null 2>&1 </dev/null; then
  cargo deny --locked check --hide-inclusion-graph advisories
else
  echo "advisories: NOT CHECKED, the advisory database could not be reached"
fi
