#!/bin/bash
# chromium.sh DIR: prints the path of a chromium; where none is installed, the one that is in DIR, or is fetched into it.
# It comes from the host's own Debian with what it needs and the host lacks, checked by Debian's signatures and not
# pinned: a browser's old releases leave the mirrors. Neither root nor anything installed on the host is needed.
# Exit code 77: it cannot be had on this machine, and why.
set -euo pipefail
cannot() { echo "chromium cannot be had here: $*" >&2; exit 77; }

for name in chromium chromium-browser google-chrome; do
  command -v "$name" && exit
done
mkdir -p "$1"
cd "$1"
exec 9>lock
flock 9 # two test processes do not fetch it at once
program=$PWD/root/usr/bin/chromium-here
[ ! -x "$program" ] || { echo "$program"; exit; }

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || cannot "the command $tool is missing"
done
rm -rf root apt
mkdir -p apt/{lists,archives}/partial
own_apt() { # with lists and archives of its own, and the host's sources and list of installed packages
  apt-get -qq -o Dir::State::Lists="$PWD/apt/lists" -o Dir::Cache="$PWD/apt" -o Debug::NoLocking=1 \
    -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none "$@" >&2
}
own_apt update || cannot "the package mirror does not answer"
own_apt --download-only --no-install-recommends -y install chromium fonts-dejavu-core ||
  cannot "apt has no chromium that fits this machine"
for package in apt/archives/*.deb; do dpkg-deb -x "$package" root; done
[ -x root/usr/lib/chromium/chromium ] || cannot "apt's chromium is no Debian package of it"
rm -rf apt

# With no font on the host, those of the package.
cat >root/fonts.conf <<XML
<?xml version="1.0"?>
<fontconfig><dir>$PWD/root/usr/share/fonts</dir><dir>/usr/share/fonts</dir><cachedir>$PWD/root/fonts</cachedir></fontconfig>
XML
libraries=$(find "$PWD/root" -path '*-linux-gnu*' -name '*.so*' -printf '%h\n' | sort -u | paste -sd:)
cat >"$program" <<SH
#!/bin/bash
export LD_LIBRARY_PATH=$libraries FONTCONFIG_FILE=$PWD/root/fonts.conf
exec $PWD/root/usr/lib/chromium/chromium "\$@"
SH
chmod +x "$program"
"$program" --version >&2 || { rm "$program"; cannot "apt's chromium does not start"; }
echo "$program"
