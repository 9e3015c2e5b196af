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
        wanted: its name; or ``auto``: TensorRT alone where that is installed, is enough, and PyTorch is not there; else
            PyTorch.
    """
    if wanted != AUTO:
        return Runtime(wanted)
    manifest = artifact.manifest
    if torch_version() and version_of(manifest.producer.torch_tensorrt.name):
        return Runtime.TORCH
    if not all(map(version_of, (manifest.producer.tensorrt.name, "cuda-bindings"))):
        return Runtime.TORCH
    needs_torch = manifest.target.backend is not Backend.TENSORRT_RTX or operators_for_torch(artifact.graph())
    return Runtime.TORCH if needs_torch else Runtime.TENSORRT
