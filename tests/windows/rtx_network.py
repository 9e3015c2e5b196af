"""Builds a small network with TensorRT-RTX, which is the same on every system, in a process of its own.

python rtx_network.py FILE     writes the plan to FILE and prints the library's release
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import tensorrt_rtx as trt

if __name__ == "__main__":
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.float32, (4, 8))
    w = network.add_input("w", trt.float32, (8, 8))
    product = network.add_matrix_multiply(x, trt.MatrixOperation.NONE, w, trt.MatrixOperation.NONE)
    y = network.add_activation(product.get_output(0), trt.ActivationType.RELU).get_output(0)
    network.mark_output(y)
    plan = builder.build_serialized_network(network, builder.create_builder_config())
    Path(sys.argv[1]).write_bytes(plan)
    print(json.dumps({"version": trt.__version__, "header_size": trt.Runtime(logger).engine_header_size}))
