"""Reads an artifact by torch.export, whose reader takes seconds to import; a model that is only called skips it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import Lock
from typing import Any

import torch
from torch.export import ExportedProgram

from toolchain.artifact import Artifact
from toolchain.container.entry_names import GRAPH_ENTRY, is_tensor_list
from toolchain.container.reader import Container, ZipEntry
from toolchain.container.splice import spliced_archive
from toolchain.engine.info import ENGINE_FIELD
from toolchain.errors import MalformedArtifactError, TrtcrossError
from toolchain.graph.document import set_devices
from toolchain.graph.facts import PlacedNode
from toolchain.graph.text_edits import on_device, with_texts
from toolchain.io.strict_json import load_json
from toolchain.limits import TENSOR_LIST
from windows_side.loader.replace import replace_nodes

# The operator that replaces a placeholder node while torch reads the graph. Upstream's own operator is not used:
# defining it here would make a later `import torch_tensorrt` fail.
_LIBRARY = torch.library.Library("trtcross", "DEF")
_LIBRARY.define("engine(Tensor[] inputs, str token) -> Tensor[]")

# torch.export.load keeps its current reader in a global variable.
_READING = Lock()

_ENGINE_TARGET = "torch.ops.trtcross.engine.default"
_EMPTY = {"sizes": [{"as_int": 0}], "strides": [{"as_int": 1}], "storage_offset": {"as_int": 0}}

# Entries that are not part of the program, and the tensors, which are loaded already.
_LEFT_OUT = ("extra/", "trtcross/", "data/weights/", "data/constants/")

Entries = list[tuple[str, bytes | ZipEntry]]


def read_exported(artifact: Artifact, device: torch.device) -> ExportedProgram:
    """Reads the program by torch.export, with a token in the place of each engine. Weights come from the file."""
    entries: Entries = []
    for name, entry in artifact.container.entries.items():
        if name == GRAPH_ENTRY:
            entries.append((name, _graph_for_torch(artifact.graph_text, artifact.placeholders, device)))
        elif is_tensor_list(name):
            entries.append((name, _on_device(artifact.read_entry(name), name, device)))
        elif not name.startswith(("extra/", "trtcross/")):
            entries.append((name, entry))
    return _read(artifact.container, entries, str(artifact.path))


def exported_later(
    artifact: Artifact, device: torch.device, tensors: Callable[[str], torch.Tensor], engines: list[Any]
) -> Callable[[], ExportedProgram]:
    """Returns a function that makes the exported program from what is loaded already.

    What it needs of the file is read now: the file may be gone when the function is called.

    Args:
        tensors: returns the weight, buffer or constant of a name.
        engines: the engines in graph order.
    """
    text, placeholders = artifact.graph_text, artifact.placeholders
    small: dict[str, bytes] = {}
    for name in artifact.container.entries:
        if is_tensor_list(name):
            listing, files = _without_elements(artifact.container.read(name), name)
            small[name] = listing
            small |= dict.fromkeys(files, b"")
        elif name != GRAPH_ENTRY and not name.startswith(_LEFT_OUT):
            small[name] = artifact.container.read(name)
    fields = [list[str | bytes](placeholder.fields) for placeholder in placeholders]
    where = str(artifact.path)

    def make() -> ExportedProgram:
        entries: Entries = [(GRAPH_ENTRY, _graph_for_torch(text, placeholders, device)), *small.items()]
        program = _read(None, entries, where)
        for kept in (program.state_dict, program.constants):
            kept.update({name: tensors(name) for name in kept})
        infos: dict[str, Callable[[], list[str | bytes]]] = {
            name: partial(list, info) for name, info in zip(engine_nodes(program), fields, strict=True)
        }
        made: Iterator[Any] = iter(engines)
        return replace_nodes(program, infos, lambda _: next(made))

    return make


def engine_nodes(program: ExportedProgram) -> Mapping[str, str]:
    """Returns the nodes in the places of engines, with the token of each, in graph order.

    Args:
        program: a program of :func:`read_exported`.
    """
    return {
        node.name: node.args[1]
        for node in program.graph.nodes
        if node.op == "call_function" and str(node.target) == "trtcross.engine.default"
    }


def _read(container: Container | None, entries: Entries, where: str) -> ExportedProgram:
    # Tensors that are made in inference mode cannot be changed outside of it, and a model may change its buffers.
    with spliced_archive(container, entries) as file, _READING, torch.inference_mode(False):
        try:
            return torch.export.load(file)
        except TrtcrossError:
            raise
        except Exception as error:
            raise MalformedArtifactError(
                f"torch {torch.__version__} cannot read the program: {error}",
                where=where,
                remedy="use the torch release that `trtcross check` names",
            ) from error


def _graph_for_torch(graph: bytes, placeholders: list[PlacedNode], device: torch.device) -> bytes:
    """Returns the graph's text with our operator in the place of each placeholder, and everything on ``device``.

    The text is edited rather than parsed again.
    """
    text = graph.decode()
    replaced = [(node.start, node.end, _engine_node(text[node.start : node.end])) for node in placeholders]
    return on_device(with_texts(text, replaced), device.type, device.index).encode()


def _engine_node(text: str) -> str:
    node = json.loads(text)
    inputs = node["inputs"][0]
    token = {"name": "token", "arg": node["inputs"][1 + ENGINE_FIELD]["arg"], "kind": inputs["kind"]}
    return json.dumps({**node, "target": _ENGINE_TARGET, "inputs": [inputs, token]})


def _on_device(data: bytes, name: str, device: torch.device) -> bytes:
    document: dict[str, Any] = load_json(data, where=name, limit=TENSOR_LIST)
    set_devices(document, device.type, device.index)
    return json.dumps(document).encode()


def _without_elements(data: bytes, name: str) -> tuple[bytes, list[str]]:
    """Returns a list of tensors with every tensor made empty, and the names of the entries of those tensors."""
    document: dict[str, Any] = load_json(data, where=name, limit=TENSOR_LIST)
    set_devices(document, "cpu", None)
    folder = name.rpartition("/")[0]
    files = []
    for payload in document["config"].values():
        payload["tensor_meta"].update(_EMPTY)
        files.append(f"{folder}/{payload['path_name']}")
    return json.dumps(document).encode(), files
