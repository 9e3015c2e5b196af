#!/usr/bin/env bash
# Builds and verifies with the `tensorrt` backend, on a Linux machine with its libraries and a GPU, and writes a small
# report for the table in docs/verify/where.md.
#
#   ci/tensorrt-proof.sh [REPORT]      with `trtcross[tensorrt]` installed in the active environment
set -euo pipefail
report=${1:-tensorrt-proof.md}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
here=$(cd "$(dirname "$0")/.." && pwd)
cd "$here"

run() { # NAME COMMAND...: one row of the report
  local name=$1 code=0
  shift
  echo "\$ $*"
  "$@" >"$work/log" 2>&1 || code=$?
  cat "$work/log"
  echo "| $name | $([ $code = 0 ] && echo yes || echo "no: exit code $code") |" >>"$work/rows"
}

gpu=$(python -c 'import torch; print("sm_%d%d" % torch.cuda.get_device_capability())')
run "builds for Windows" trtcross build tests.models:tiny -o "$work/windows.pt2" --backend tensorrt --gpu "$gpu"
run "its structure is sound" trtcross verify "$work/windows.pt2" --level structure
run "builds for this machine" trtcross build tests.models:tiny -o "$work/linux.pt2" --backend tensorrt --gpu "$gpu" \
  --target linux-x86_64
run "its numbers are right here" trtcross verify "$work/linux.pt2" --level numbers
{
  echo "# The tensorrt backend on $(python -c 'import torch; print(torch.cuda.get_device_name())')"
  echo
  python -c 'from importlib.metadata import version as v; print("torch", v("torch"), "torch-tensorrt", v("torch-tensorrt"), "tensorrt", v("tensorrt"))'
  echo
  echo "| what | done |"
  echo "|---|---|"
  cat "$work/rows"
} >"$report"
echo "wrote $report"
! grep -q '| no:' "$report"
