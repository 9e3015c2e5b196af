"""Which runtime shall run an artifact: the one that was asked for, or one that can and is there."""

from __future__ import annotations

from toolchain.artifact import Artifact
from toolchain.graph.torch_free import operators_for_torch
from toolchain.host.installed import torch_version, version_of
from toolchain.targets import Backend
from windows_side.preflight.requirements import Runtime

AUTO = "auto"


def choose_runtime(artifact: Artifact, wanted: str) -> Runtime:
    """The runtime of an artifact.

    Args:
        wanted: its name; or ``auto``: PyTorch where it is installed or needed, else TensorRT alone.
    """
    if wanted != AUTO:
        return Runtime(wanted)
    package = artifact.manifest.producer.torch_tensorrt.name
    if torch_version() and version_of(package):
        return Runtime.TORCH
    needs_torch = artifact.manifest.target.backend is not Backend.TENSORRT_RTX or operators_for_torch(artifact.graph())
    return Runtime.TORCH if needs_torch else Runtime.TENSORRT
