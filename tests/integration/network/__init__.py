"""Runs a TensorRT network on the CPU, with no engine and no GPU.

``record`` copies an ``INetworkDefinition`` right after conversion; the ``Network`` that it gives computes its outputs
in PyTorch. Every layer is written from NVIDIA's documentation of that layer, and never from a converter, so that what
a converter makes of an operator is tested. A layer that is not written here raises ``UnknownLayerError``.

Numbers: halves are widened to fp32 on the way into a layer, and its result is rounded once to the dtype that TensorRT
gives to the layer's output: TensorRT too accumulates products of halves in fp32. Fusion may keep more digits between
two layers, so a comparison in halves needs a tolerance of some units of the last place. Integers are computed in their
own dtype. Division of integers rounds toward zero, as in C: the documentation does not say so.
"""

from tests.integration.network.interpreter import Network, record
from tests.integration.network.layers import NetworkError, UnknownLayerError

__all__ = ["Network", "NetworkError", "UnknownLayerError", "record"]
