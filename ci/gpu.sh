#!/usr/bin/env bash
# On an NVIDIA GPU host: takes artifacts that were built for Windows on a machine without a GPU, converts them for this
# host, and runs tests/gpu on them.
#
#   ci/gpu.sh FOLDER_OF_ARTIFACTS
set -euo pipefail
export TRTCROSS_ARTIFACTS
TRTCROSS_ARTIFACTS=$(cd "$1" && pwd)
cd "$(dirname "$0")/.."
python3 -c 'import torch; assert torch.cuda.is_available(), "there is no GPU here"; print(torch.cuda.get_device_name())'
python3 -m pytest tests/gpu -q -rA -p no:cacheprovider
