#!/usr/bin/env bash
# Installs, upgrades, removes and purges the Debian package in a Debian of its own, in a folder. Needs root, dpkg,
# debootstrap and a Debian mirror; takes a minute or two beside the build.
#
#   scripts/check-deb.sh                      the package as `make deb` builds it
#   scripts/check-deb.sh --no-build BINARY    with a binary that is there already, such as target/debug/requestrocket-edge
#
# DEB_SUITE names another release than bookworm.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

name=requestrocket-edge
suite=${DEB_SUITE:-bookworm}

usage() { echo "usage: scripts/check-deb.sh [--no-build BINARY]" >&2 && exit 64; }
binary=
case $#:${1:-} in
  0:) ;;
  2:--no-build) binary=$(realpath "$2") ;;
  *) usage ;;
esac
[ "$(id -u)" = 0 ] || { echo "deb: needs root, for chroot" >&2 && exit 1; }
command -v debootstrap >/dev/null || { echo "deb: needs debootstrap" >&2 && exit 1; }
scripts/setup.sh deb

work=$(mktemp -d)
# debootstrap mounts /proc there, and leaves it when it is interrupted.
cleanup() {
  awk -v work="$work/" 'index($2, work) == 1 { print $2 }' /proc/mounts | sort -r | xargs --no-run-if-empty umount --lazy
  rm -rf --one-file-system "$work"
}
trap cleanup EXIT
root=$work/root

fail() { echo "deb: $*" >&2 && exit 1; }
note() { echo "deb: $*"; }
# inside COMMAND...: in the folder's Debian, where no prompt gets an answer.
inside() {
  unshare --mount --pid --fork --mount-proc="$root/proc" chroot "$root" \
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}

# The package, twice: the second is an upgrade, whose edge.yaml differs.
if [ -n "$binary" ]; then
  mkdir -p "$work/target/release"
  cp "$binary" "$work/target/release/$name"
  CARGO_TARGET_DIR=$work/target cargo deb --locked --no-build --fast --quiet --output "$work/first.deb" >/dev/null
else
  cargo deb --locked --output "$work/first.deb" >/dev/null
fi
dpkg-deb --raw-extract "$work/first.deb" "$work/second"
echo '# A line that only the newer package has.' >>"$work/second/etc/$name/edge.yaml"
sed -i -E 's/^Version: .*/&+upgrade/' "$work/second/DEBIAN/control"
dpkg-deb --build -Znone "$work/second" "$work/second.deb" >/dev/null
note "built $(dpkg-deb --field "$work/first.deb" Package Version Architecture | sed 's/.*: //' | paste -sd' ')"

if command -v lintian >/dev/null; then
  lintian --allow-root --fail-on error "$work/first.deb"
  note "lintian has no error to report"
else
  note "NOT CHECKED by lintian, which is not installed"
fi

note "making a $suite"
debootstrap --variant=minbase --include=systemd,procps,ca-certificates "$suite" "$root" >"$work/debootstrap.log" ||
  { tail -n 20 "$work/debootstrap.log" >&2 && fail "debootstrap failed"; }
cp "$work/first.deb" "$work/second.deb" "$root/"
inside find / -xdev \( -path /proc -o -path /run -o -path /var/lib/dpkg \) -prune -o -print | sort >"$work/before"

# is MODE OWNER:GROUP FILE
is() {
  local found
  found=$(inside stat -c '%a %U:%G' "$3") || fail "$3 is missing"
  [ "$found" = "$1 $2" ] || fail "$3 is $found, not $1 $2"
}

installed() {
  is 755 root:root /usr/bin/$name
  is 644 root:root /usr/lib/systemd/system/$name.service
  is 750 root:$name /etc/$name
  is 644 root:root /etc/$name/edge.yaml
  is 750 root:$name /etc/$name/proxies.d
  is 700 root:root /etc/$name/secrets
  inside test -f /usr/share/doc/$name/examples/proxies.d/10-first.yaml || fail "the samples are missing"
  inside test -h /etc/systemd/system/multi-user.target.wants/$name.service || fail "the unit is not enabled"
  # As the daemon's user, so that what it may not read is found out here.
  local said
  said=$(inside setpriv --reuid=$name --regid=$name --clear-groups $name check -c /etc/$name/edge.yaml 2>&1) ||
    fail "the installed configuration does not hold: $said"
  [ -z "$said" ] || fail "check is not silent: $said"
  [ "$(inside $name --version)" = "$name $(awk -F '"' '/^version/ { print $2; exit }' Cargo.toml)" ] || fail "wrong version"
}

note "installing"
inside dpkg --install /first.deb >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "it does not install"; }
installed
inside systemd-analyze verify --man=no $name.service >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "the unit is wrong"; }
! grep -F "$name" "$work/log" >&2 || fail "$suite's systemd does not understand all of the unit"
inside systemd-analyze security --offline=true --threshold=15 $name.service >"$work/log" 2>&1 ||
  { grep -v '^✓' "$work/log" >&2 && fail "the unit is exposed more than 1.5 in $suite"; }

note "upgrading over an untouched configuration"
inside dpkg --install /second.deb >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "it does not upgrade"; }
installed
inside grep -q 'only the newer package' /etc/$name/edge.yaml || fail "an untouched edge.yaml was not renewed"

note "upgrading over a changed configuration"
inside dpkg --install --force-downgrade /first.deb >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "no way back"; }
inside sed -i 's/^region: local$/region: mine/' /etc/$name/edge.yaml
inside sh -c "echo '# mine' >/etc/$name/proxies.d/mine.yaml"
inside dpkg --install --force-confdef --force-confold /second.deb >"$work/log" 2>&1 ||
  { cat "$work/log" >&2 && fail "it does not upgrade"; }
installed
inside grep -q '^region: mine$' /etc/$name/edge.yaml || fail "the changed edge.yaml was lost"
inside test -f /etc/$name/proxies.d/mine.yaml || fail "a fragment was lost"

note "removing"
inside dpkg --remove $name >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "it cannot be removed"; }
! inside test -e /usr/bin/$name || fail "the binary stays"
inside grep -q '^region: mine$' /etc/$name/edge.yaml || fail "removing took the configuration along"

note "purging"
inside sh -c "mkdir -p /var/log/$name && echo line >/var/log/$name/access.log"
inside dpkg --purge $name >"$work/log" 2>&1 || { cat "$work/log" >&2 && fail "it cannot be purged"; }
! inside getent passwd $name || fail "the user stays"
! inside getent group $name || fail "the group stays"
inside find / -xdev \( -path /proc -o -path /run -o -path /var/lib/dpkg \) -prune -o -print | sort >"$work/after"
# Backups of the user database stay after any change of it.
backups='^/etc/((passwd|group|shadow|gshadow|subuid|subgid)-|\.pwd\.lock)$'
left=$(comm -13 "$work/before" "$work/after" | grep -vE "$backups" || true)
[ -z "$left" ] || fail "purging left: $left"

note "installs, upgrades, removes and purges cleanly in $suite"
