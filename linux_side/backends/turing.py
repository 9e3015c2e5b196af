"""Refuses layers that TensorRT-RTX does not support on Turing (sm_75), although it builds engines with them.

Its support matrix has no fp32 matrix products and no 3D convolutions for Turing, which also has no bfloat16. Such
engines are reported (pytorch/TensorRT 4546, 4643) to return zeros silently, to have no execution context, or to crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolchain.errors import BuildFailedError

_CONVOLUTION_3D = 5  # dimensions of its input: batch, channels and three spatial ones


def refuse_for_turing(network: Any) -> None:
    """Refuses a network that a Turing GPU would run wrongly or not at all.

    Args:
        network: an ``INetworkDefinition``.

    Raises:
        BuildFailedError: the network has such a layer. The message names the first one.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for problem, remedy in _problems(layer):
            raise BuildFailedError(
                f"TensorRT-RTX computes no {problem} on Turing (sm_75), and its engine would be silently wrong",
                where=f"--gpu sm_75, layer {layer.name}",
                remedy=f"{remedy}; or build for newer GPUs",
            )


def _problems(layer: Any) -> Iterator[tuple[str, str]]:
    inputs = [tensor for index in range(layer.num_inputs) if (tensor := layer.get_input(index)) is not None]
    tensors = [*inputs, *(layer.get_output(index) for index in range(layer.num_outputs))]
    if any(tensor.dtype.name == "BF16" for tensor in tensors):
        yield "bfloat16", "build with --precision fp16"
    if layer.type.name == "MATRIX_MULTIPLY" and inputs[0].dtype.name == "FLOAT":
        yield (
            "fp32 matrix products",
            "build with --precision fp16, or keep that operator in PyTorch with --torch-executed-op",
        )
    if layer.type.name == "CONVOLUTION" and len(inputs[0].shape) == _CONVOLUTION_3D:
        yield "3D convolutions", "keep them in PyTorch: --torch-executed-op aten.convolution.default"
