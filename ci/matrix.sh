#!/bin/bash
# Runs a matrix on this machine: builds and verifies it on Linux, verifies it again in a real Windows Python, and reports.
#
#   ci/matrix.sh SPEC FOLDER [OPTIONS OF `trtcross matrix run`]
#
# BIN is the folder of the Linux Python that builds (a venv's bin). If no Windows Python can be set up, that leg is left
# out, with a message. The exit code is that of the first leg that failed.
set -uo pipefail
spec=$1 folder=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
bin=${BIN:+$BIN/}
code=0

linux_leg() { "${bin}trtcross" matrix run "$spec" --out "$folder" "$@"; }

windows_leg() { # our wheel is installed there, with only the base packages beside it
  local dest=${TRTCROSS_WINE:-.wine} work status
  PYTHON=${bin}python3 ci/windows/setup.sh "$dest" || { status=$?; [ $status = 77 ] && echo "THE WINDOWS LEG WAS NOT RUN"; return $status; }
  dest=$(cd "$dest" && pwd)
  exec 8>"$dest/test-lock"
  flock 8 # one run at a time in this Windows Python
  work=$(mktemp -d)
  "${bin}python3" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work" . || return
  ci/windows/contained 300 "$dest/winpy" -m pip install -q --no-index --no-deps --force-reinstall \
    --no-warn-script-location "$(windows "$work/$(ls "$work")")" </dev/null || return
  cp ci/leg.py "$work/"
  mkdir -p "$folder/legs"
  (cd "$work" && "$OLDPWD/ci/windows/contained" 900 "$dest/winpy" leg.py verify \
    "$(windows "$(absolute "$folder/artifacts")")" "$(windows "$(absolute "$folder/legs/windows")")" </dev/null)
  status=$?
  rm -rf "$work"
  return $status
}

absolute() { case $1 in /*) echo "$1" ;; *) echo "${OLDPWD}/$1" ;; esac; }
windows() { echo "Z:${1//\//\\}"; }

echo "== Linux: build and verify"
linux_leg "$@" || code=$?
echo "== Windows: verify"
windows_leg || { status=$?; [ $status = 77 ] || [ $code != 0 ] || code=$status; }
echo "== report"
"${bin}trtcross" matrix report "$spec" --out "$folder" --junit "$folder/junit.xml" --markdown "$folder/summary.md" ||
  exit
exit $code
