#!/usr/bin/env bash
# Lets systemd read the unit files, with the binary's place filled in: it refuses a unit whose program is not there. Then
# lets it judge how far a daemon that was taken over could get.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
shopt -s nullglob

# In tenths, as systemd-analyze takes it. 0 is a service that can do nothing, 100 one that can do anything.
most_exposure=15

units=(systemd/*.service systemd/*.socket systemd/*.timer)
if [ ${#units[@]} -eq 0 ]; then
  echo "units: none"
  exit 0
fi

copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
for unit in "${units[@]}"; do
  sed -E 's|/usr(/local)?/bin/requestrocket-edge|/bin/true|g' "$unit" >"$copies/$(basename "$unit")"
done
# The drop-in for newer ones: an older one would not know what it says.
version=$(systemd-analyze --version | awk 'NR == 1 { print int($2) }')
if [ "$version" -ge 253 ]; then
  units+=(systemd/notify-reload.conf)
  mkdir "$copies/requestrocket-edge.service.d"
  cp systemd/notify-reload.conf "$copies/requestrocket-edge.service.d/"
fi
echo "units: ${units[*]}"
verdict=$(systemd-analyze verify --man=no "$copies"/*.{service,socket,timer} 2>&1) || { echo "$verdict" >&2 && exit 1; }
# A line that it does not understand is only remarked upon. Remarks on the machine's own units are not ours to mend.
if grep -F "$copies/" <<<"$verdict" >&2; then exit 1; fi

for unit in "$copies"/*.service; do
  verdict=$(systemd-analyze security --no-pager --offline=true --threshold=$most_exposure "$unit" 2>&1) || {
    grep -v '^✓' <<<"$verdict" >&2
    echo "units: $(basename "$unit") is exposed more than $((most_exposure / 10)).$((most_exposure % 10))" >&2
    exit 1
  }
  grep -oE 'Overall exposure.*: [0-9.]+' <<<"$verdict" | sed 's/^/units: /'
done

# Users and folders are created in the package's own check (scripts/check-deb.sh); here it is enough that systemd understands
# who it is.
verdict=$(systemd-sysusers --dry-run "$PWD"/systemd/sysusers.d/*.conf 2>&1) || { echo "$verdict" >&2 && exit 1; }
