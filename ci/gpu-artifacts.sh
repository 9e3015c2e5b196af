#!/usr/bin/env bash
# Builds, for Windows and on a machine without a GPU, the artifacts that tests/gpu and benchmarks/gpu run on a GPU host.
#
#   ci/gpu-artifacts.sh FOLDER [PRECISION ...]
set -euo pipefail
folder=$1; shift
precisions=("${@:-fp32}")
mkdir -p "$folder"

build() {  # NAME MODEL OPTION ...
  local out="$folder/$1.pt2" model=$2; shift 2
  [ -e "$out" ] || trtcross build "examples.models:$model" -o "$out" --target windows-x86_64 -q "$@"
}

for precision in "${precisions[@]}"; do
  for model in resnet18 resnet50 vit_b_16; do
    build "$model-$precision" "$model" --precision "$precision" --dynamic x.0=1:8:8
  done
  build "efficientnet_lite0-$precision" efficientnet_lite0 --precision "$precision" --dynamic inputs.0=1:8:8
  for model in swin_t swin_t_8 minilm two_outputs kv_cache accumulator gates; do
    build "$model-$precision" "$model" --precision "$precision"
  done
  build "minilm-dynamic-$precision" minilm --precision "$precision" \
    --dynamic input_ids.0=1:4:16 --dynamic attention_mask.0=1:4:16 \
    --dynamic input_ids.1=2:32:64 --dynamic attention_mask.1=2:32:64
  build "resnet18-profiles-$precision" resnet18 --precision "$precision" --dynamic x.0=1:1:1,2:8:16
done
# Only fp32: PyTorch has no igamma in half precision on a GPU.
build mixed-fp32 mixed --dynamic x.0=1:4:8 --torch-executed-op aten.arange.start_step \
  --torch-executed-op aten.full.default
# Captured in a CUDA graph, like all of them: its second engine has the sizes from the input's shape.
build ranked-fp32 ranked --dynamic x.0=1:2:4 --dynamic x.1=2:6:16 --torch-executed-op aten.sort.default
build gates-dynamic-fp32 gates --dynamic x.0=1:4:8
build nested-fp32 nested
build patches-fp32 patches --dynamic signal.1=16:64:256
build camera-fp32 camera
