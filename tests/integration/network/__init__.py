"""An interpreter that runs a TensorRT network on the CPU, without an engine or a GPU.

``record`` copies an ``INetworkDefinition`` right after conversion; the ``Network`` that it returns computes its outputs
in PyTorch. Every layer is written from NVIDIA's documentation of that layer, and never from a converter, so that tests
can find mistakes of converters. A layer that is not written here raises ``UnknownLayerError``.

Numbers: halves are widened to fp32 before a layer, and its result is rounded once to the dtype that TensorRT gives to
the layer's output; TensorRT accumulates products of halves in fp32 too. Fusion may keep more digits between two layers,
so a comparison in halves needs a tolerance of some units in the last place. Integers are computed in their own dtype.
Division of integers rounds toward zero, as in C, which the documentation does not state.
"""

from tests.integration.network.interpreter import Network, record
from tests.integration.network.layers import NetworkError, UnknownLayerError

__all__ = ["Network", "NetworkError", "UnknownLayerError", "record"]
