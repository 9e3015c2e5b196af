"""Reads an artifact as a flat program by our own reader: its graph, its tensors and its engines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from toolchain.artifact import Artifact
from toolchain.container.entry_names import GRAPH_ENTRY
from toolchain.engine.info import ENGINE_FIELD, FIELDS
from toolchain.errors import MalformedArtifactError
from windows_side.execution.flat_program import FlatProgram, break_cycles
from windows_side.loader.exported import exported_later
from windows_side.loader.graph_reader import read_graph
from windows_side.loader.tensors import read_tensors

_DEVICE_FIELD = FIELDS.index("device")


def read_flat(
    artifact: Artifact,
    device: torch.device,
    device_field: str | None,
    engine_factory: Callable[[list[str | bytes]], Any],
) -> FlatProgram:
    """Reads an artifact that was found safe to load and whose digests were checked.

    Args:
        device: where the tensors are, whatever the graph states.
        device_field: the value of the engines' device field, or None to keep the one in the file.
        engine_factory: makes an engine from its engine info, which has the engine as bytes.

    Raises:
        UnknownFormError: the graph has a form that torch may write and this reader does not read.
        MalformedArtifactError: the graph is not as torch writes one, or a tensor cannot be read.
    """
    where = f"{artifact.path}, entry {GRAPH_ENTRY}"
    try:
        read = read_graph(artifact.graph(), [engine.token for engine in artifact.engines], device, where=where)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise MalformedArtifactError(f"the graph cannot be read: {error}", where=where) from error
    # Tensors that are made in inference mode cannot be changed outside of it, and a model may change its buffers.
    with torch.inference_mode(False):
        tensors = read_tensors(artifact, read.attributes, device)
        engines = [engine_factory(engine_info(artifact, index, device_field)) for index in range(len(read.engines))]
        module = torch.fx.GraphModule(tensors | dict(zip(read.engines, engines, strict=True)), read.graph)
    break_cycles(module)
    return FlatProgram(
        module,
        read.in_spec,
        read.out_spec,
        read.state,
        read.changed_inputs,
        engines,
        exported_later(artifact, device, lambda name: attribute_of(module, name), engines),
    )


def engine_info(artifact: Artifact, index: int, device_field: str | None) -> list[str | bytes]:
    """Returns the fields from which an engine is made, with the engine itself as bytes.

    Args:
        index: the engine's index in the artifact.
        device_field: the value of the device field, or None to keep the one in the file.
    """
    fields: list[str | bytes] = list(artifact.placeholders[index].fields)
    if device_field is not None:
        fields[_DEVICE_FIELD] = device_field
    fields[ENGINE_FIELD] = artifact.engines[index].read()
    return fields


def attribute_of(module: torch.nn.Module, name: str) -> Any:
    """Returns an attribute of a module or of a module within it, by its dotted name."""
    path, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(path), leaf)
