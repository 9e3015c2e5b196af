"""What TensorRT-RTX does not compute on Turing (sm_75), where it builds an engine for it all the same.

Its support matrix has no fp32 matrix products and no 3D convolutions there, and Turing has no bfloat16. Such engines
are reported (pytorch/TensorRT 4546, 4643) to give zeros in silence, to have no execution context, or to crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolchain.errors import BuildFailedError

_WITH_3D_IMAGES = 5  # dimensions: batch, channels, and three of the image


def refuse_for_turing(network: Any) -> None:
    """Refuses a network that a Turing GPU would run wrongly or not at all; its operator then stays in PyTorch.

    Args:
        network: an ``INetworkDefinition``.

    Raises:
        BuildFailedError: with the first such layer.
    """
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for problem, remedy in _problems(layer):
            raise BuildFailedError(
                f"TensorRT-RTX computes no {problem} on Turing (sm_75), and its engine would be wrong without a word",
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
    if layer.type.name == "CONVOLUTION" and len(inputs[0].shape) == _WITH_3D_IMAGES:
        yield "3D convolutions", "keep them in PyTorch: --torch-executed-op aten.convolution.default"
