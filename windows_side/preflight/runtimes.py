"""Chooses the runtime of an artifact: the one that was asked for, or one that is installed and able to run it."""

from __future__ import annotations

from toolchain.artifact import Artifact
from toolchain.errors import IncompatibleError
from toolchain.graph.torch_free import listed, operators_for_torch
from toolchain.host.installed import torch_version, version_of
from toolchain.host.requirements import Requirement, State
from toolchain.targets import Backend
from windows_side.preflight.requirements import Runtime, check

AUTO = "auto"


def choose_runtime(artifact: Artifact, wanted: str) -> Runtime:
    """Returns the runtime that is to run an artifact.

    Args:
        wanted: a runtime's name, or ``auto``. That is TensorRT alone where TensorRT is installed and enough for the
            graph, and PyTorch or Torch-TensorRT is missing; otherwise it is PyTorch.
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


def check_for(artifact: Artifact, runtime: Runtime) -> list[Requirement]:
    """Returns every requirement of an artifact for a runtime on this machine, those of its graph included.

    Raises:
        MalformedArtifactError: the graph or an engine's header is damaged.
    """
    found = check(artifact, runtime)
    if runtime is Runtime.TENSORRT:
        found.append(_graph_requirement(artifact))
    elif runtime is Runtime.ONNXRUNTIME:
        found.append(_onnx_requirement(artifact))
    return found


def _graph_requirement(artifact: Artifact) -> Requirement:
    needed, found = "a graph that needs no PyTorch", operators_for_torch(artifact.graph())
    if not found:
        return Requirement("graph", State.MET, needed, "none is needed", None)
    return Requirement("graph", State.NOT_MET, needed, f"PyTorch runs {listed(found)}", "use --runtime torch")


def _onnx_requirement(artifact: Artifact) -> Requirement:
    """Returns whether the artifact can be an ONNX model that NVIDIA's plugin runs."""
    # Imported late: the other runtimes start without them.
    from toolchain.formats.onnx_limits import require_runnable
    from toolchain.formats.onnx_names import onnx_names
    from toolchain.formats.source import Source

    needed = "a model that ONNX and the plugin can have"
    try:
        source = Source.of(artifact)
        require_runnable(source)
        onnx_names(source)
    except IncompatibleError as error:
        return Requirement("onnx-model", State.NOT_MET, needed, error.problem, error.remedy)
    return Requirement("onnx-model", State.MET, needed, f"{len(artifact.engines)} engine(s)", None)
