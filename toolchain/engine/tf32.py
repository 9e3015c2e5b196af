"""The variable of the environment that decides whether TensorRT-RTX computes fp32 products in TF32.

TensorRT-RTX 1.6.1 ignores the builder's flag TF32: without it, products of fp32 are off by as much as with it (3e-4 of
one linear layer, on an NVIDIA H100). An engine keeps what the variable was when it was built, and TensorRT runs it only
where the variable is the same. The first engine of a process fixes how all of them compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolchain.targets import Backend

VARIABLE = "NVIDIA_TF32_OVERRIDE"
OFF = "0"


def needed_value(backend: Backend, settings: Mapping[str, Any]) -> str | None:
    """Returns what the variable must be for an artifact's engines; None means that it must not be set.

    Args:
        backend: what built the engines.
        settings: the build's settings of the manifest.
    """
    return OFF if backend is Backend.TENSORRT_RTX and settings.get("tf32") is False else None
