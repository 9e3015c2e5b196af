#!/usr/bin/env bash
# Runs tests/gpu and tests/compatibility on an NVIDIA GPU host, and with a second folder benchmarks/gpu too. The artifacts
# are those that ci/gpu-artifacts.sh built for Windows on a machine without a GPU; they are converted for this host.
#
#   ci/gpu.sh FOLDER_OF_ARTIFACTS [RESULTS]
#
# Each step writes a result file and a log into RESULTS; a step that fails does not stop the others. SECONDS_OF_SOAK (60)
# is the length of the soak test. Eager and compiled PyTorch are not measured here: they need a different torch
# (benchmarks/gpu/peer.py).
set -euo pipefail
TRTCROSS_ARTIFACTS=$(cd "$1" && pwd)
export TRTCROSS_ARTIFACTS
results=${2:-}
[ -z "$results" ] || { mkdir -p "$results"; results=$(cd "$results" && pwd); }
cd "$(dirname "$0")/.."
python3 -c 'import torch; assert torch.cuda.is_available(), "there is no GPU here"; print(torch.cuda.get_device_name())'
# A test that hangs in native code ends its process and reports where each thread was.
tests=(python3 -m pytest tests/gpu tests/compatibility -m gpu -q -rA -p no:cacheprovider -o faulthandler_timeout=240 -o faulthandler_exit_on_timeout=true)
if [ -z "$results" ]; then
  exec "${tests[@]}"
fi

status=0
step() {  # NAME COMMAND ...
  local name=$1; shift
  echo "$(date +%T) $name"
  "$@" > "$results/$name.log" 2>&1 || { status=1; echo "$name failed: $results/$name.log"; }
}
artifacts() { for name in "$@"; do [ ! -e "$TRTCROSS_ARTIFACTS/$name.pt2" ] || echo "$TRTCROSS_ARTIFACTS/$name.pt2"; done; }
# shellcheck disable=SC2046  # one word an artifact
benchmark() {  # NAME ARGUMENT ... -- ARTIFACT ...
  local name=$1 arguments=(); shift
  while [ "$1" != -- ]; do arguments+=("$1"); shift; done
  shift
  step "$name" python3 -m "benchmarks.gpu.$name" "${arguments[@]}" "$results/$name.json" $(artifacts "$@")
}

models=(resnet18 resnet50 efficientnet_lite0 vit_b_16 swin_t swin_t_8 minilm kv_cache)
benchmark latency -- "${models[@]/%/-fp16}" mixed-fp32
rm -f "$results/errors.jsonl"  # the tests append to it
TRTCROSS_GPU_REPORT=$results/errors.jsonl step tests "${tests[@]}"
[ ! -d "$TRTCROSS_ARTIFACTS/defects" ] ||
  step rtx_defects python3 -m benchmarks.gpu.rtx_defects run "$TRTCROSS_ARTIFACTS/defects" "$results/rtx_defects.json"
[ ! -d "$TRTCROSS_ARTIFACTS/layers" ] ||
  step layers python3 -m benchmarks.gpu.layers run "$TRTCROSS_ARTIFACTS/layers" "$results/layers.json"
benchmark memory -- two_outputs-fp32 resnet50-fp32 vit_b_16-fp32
benchmark first_call -- "${models[@]/%/-fp16}"
benchmark churn 40 -- gates-fp32 two_outputs-fp32
benchmark soak "${SECONDS_OF_SOAK:-60}" -- resnet18-fp16 resnet50-fp16 mixed-fp32 swin_t-fp16 minilm-fp16 gates-fp16 \
  vit_b_16-fp16 kv_cache-fp16
exit $status
