"""Reads an artifact's graph as a session runs it, and refuses one that needs PyTorch."""

from __future__ import annotations

from toolchain.artifact import Artifact
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.errors import IncompatibleError, MalformedArtifactError
from toolchain.graph import program
from toolchain.graph.program import Program
from toolchain.graph.torch_free import listed, operators_for_torch


def read_program(artifact: Artifact) -> Program:
    """Reads the graph of an open artifact.

    Raises:
        IncompatibleError: the graph has operators that need PyTorch; the error lists them.
        MalformedArtifactError: the graph is not one that trtcross or Torch-TensorRT writes.
    """
    where = f"{artifact.path}, entry {GRAPH_ENTRY}"
    document = artifact.graph()
    if blockers := operators_for_torch(document):
        raise IncompatibleError(
            "the model has parts that run in PyTorch, which a session does without: " + listed(blockers),
            where=str(artifact.path),
            remedy="use windows_side.load (--runtime torch); `trtcross build --require-no-torch` makes none such",
        )
    found = program.read_program(document, [engine.token for engine in artifact.engines], where)
    if len(found.inputs) != len(artifact.manifest.inputs) or len(found.outputs) != len(artifact.manifest.outputs):
        raise MalformedArtifactError("the graph has other inputs or outputs than the manifest lists", where=where)
    return found
