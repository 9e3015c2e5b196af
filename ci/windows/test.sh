#!/bin/bash
# Tests the consumer in a real Windows Python: our wheel with only its base dependencies, on artifacts built by Linux.
#
#   ci/windows/test.sh [--python 3.13] [--torch] [PYTEST'S OPTIONS]
#
# BIN is the folder of the Linux Python that builds (a venv's bin). TRTCROSS_ARTIFACTS is a folder of *.pt2 files; if it
# is unset, one small model is built. Exit code 77: no Windows Python can be set up here, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
export PYTHON=${PYTHON:-${BIN:+$BIN/}python3}
dest=${TRTCROSS_WINE:-.wine}

setup=(--rtx) torch=
while [ $# -gt 0 ]; do
  case $1 in
    --python) setup+=(--python "$2"); shift ;;
    --torch) setup+=(--torch); torch=1 ;;
    *) break ;;
  esac
  shift
done
"$here/setup.sh" "${setup[@]}" "$dest"
dest=$(cd "$dest" && pwd)
exec 8>"$dest/test-lock"
flock 8 # one run at a time: they share the Windows Python and the folder below

windows() { echo "Z:${1//\//\\}"; }
has() { "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$1') is None)"; }
say() { echo "[$(date +%T)] windows: $*"; }

# The tests run in a folder without the sources, so that they import the wheel.
unset PYTHONPATH
work=$dest/run
rm -rf "$work" && mkdir -p "$work"
cp -r tests docs pyproject.toml *.md "$work/" # some tests read the documents

say "our wheel"
"$PYTHON" -m pip wheel -q --disable-pip-version-check --no-deps -w "$work/wheel" . 2>"$work/pip.log" ||
  { cat "$work/pip.log" >&2; exit 1; }
"$here/contained" 300 "$dest/winpy" -m pip install -q --no-index --no-deps --force-reinstall --no-warn-script-location \
  "$(windows "$work")\\wheel\\$(ls "$work/wheel")" </dev/null
"$here/contained" 60 "$dest/winpy" -m pip check </dev/null # its base dependencies are all there

if [ -z "${TRTCROSS_ARTIFACTS:-}" ] && has torch_tensorrt; then
  say "an artifact, built by Linux"
  TRTCROSS_ARTIFACTS=$work/artifacts
  mkdir "$TRTCROSS_ARTIFACTS"
  "$PYTHON" -c 'from toolchain.cli.main import main; main()' build tests.models:tiny -o "$TRTCROSS_ARTIFACTS/tiny.pt2" -q
fi
rm -rf "$dest"/read-only/*
if [ "${TRTCROSS_ARTIFACTS:-}" ]; then
  TRTCROSS_ARTIFACTS=$(cd "$TRTCROSS_ARTIFACTS" && pwd)
  smallest=$(ls -rS "$TRTCROSS_ARTIFACTS"/*.pt2 | head -1)
  cp "$smallest" "$dest/read-only/"
  TRTCROSS_ARTIFACTS=$(windows "$TRTCROSS_ARTIFACTS")
  export TRTCROSS_ARTIFACTS
fi
if has tensorrt_rtx; then
  "$PYTHON" tests/windows/rtx_network.py "$work/linux.plan" >/dev/null
  TRTCROSS_LINUX_PLAN=$(windows "$work/linux.plan")
  export TRTCROSS_LINUX_PLAN
fi
TRTCROSS_RTX=$(windows "$dest/rtx") TRTCROSS_READ_ONLY=$(windows "$dest/read-only")
export TRTCROSS_RTX TRTCROSS_READ_ONLY
[ "$torch" ] && { PYTHONPATH=$(windows "$dest/torch"); export PYTHONPATH; }

cd "$work"
run() { "$here/contained" 1800 "$dest/winpy" -m pytest -p no:cacheprovider -o tmp_path_retention_policy=failed "$@" </dev/null; }

# Sessions run with their own dependencies and without torch; host memory and numpy stand in for the GPU and the engines.
say "sessions, with torch absent"
status=0
PYTHONPATH=$(windows "$dest/rtx") run -q tests/unit/windows_side/session || status=$?

say "pytest in $("$here/contained" 60 "$dest/winpy" -c 'import platform, sys; print(platform.platform(), sys.version)')"
run tests/unit tests/windows "$@" || status=$?
exit $status
