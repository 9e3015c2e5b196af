#!/bin/bash
# debian.sh DIR PACKAGE[=VERSION]...: downloads packages of Debian 13 into DIR and checks Debian's signatures.
# apt gets folders of its own, so the host's packages and lists are not touched. The host's mirror and proxy are used, or
# the mirror in TRTCROSS_DEBIAN_MIRROR. Exit code 77: it cannot be done on this machine, with the reason; 1: a package
# does not exist.
set -euo pipefail
cannot() { echo "windows: cannot be set up here: $*" >&2; exit 77; }

keys=/usr/share/keyrings/debian-archive-keyring.gpg
[ -e $keys ] || cannot "Debian's keys are missing (package debian-archive-keyring)"
mirror=${TRTCROSS_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' | awk '/\/debian\/?$/ && !n++')}
[ "$mirror" ] || cannot "apt here has no Debian mirror; name one in TRTCROSS_DEBIAN_MIRROR"

mkdir -p "$1"
cd "$1"
shift
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
mkdir -p "$state"/{lists,archives}/partial
touch "$state/status"
echo "deb [arch=amd64 signed-by=$keys] $mirror trixie main" >"$state/sources"
own_apt() {
  apt-get -qq -o Dir::State="$state" -o Dir::Cache="$state" -o Dir::State::status="$state/status" \
    -o Dir::Etc::SourceList="$state/sources" -o Dir::Etc::SourceParts=/dev/null \
    -o APT::Sandbox::User="$(id -un)" -o APT::Architecture=amd64 -o APT::Architectures=amd64 \
    -o Acquire::Languages=none "$@"
}
own_apt update || cannot "the Debian mirror does not answer"
own_apt download "$@"
