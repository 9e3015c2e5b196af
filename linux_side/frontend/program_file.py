"""Reads programs that ``torch.export.save`` wrote onto the CPU, wherever they were exported, without their classes."""

from __future__ import annotations

import copy
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from linux_side.frontend.mapped_weights import mapped_weights
from linux_side.frontend.structure import plain_document, plain_program
from toolchain.container.entry_names import GRAPH_ENTRY, MANIFEST_ENTRY, SAMPLE_INPUTS_ENTRY, TENSOR_LISTS
from toolchain.container.reader import Container, ZipEntry
from toolchain.container.splice import spliced_archive
from toolchain.errors import TrtcrossError, UsageError
from toolchain.graph.document import PLACEHOLDER_TARGET, dump_graph, nodes, parse_graph, set_devices
from toolchain.io.strict_json import load_json
from toolchain.limits import OWN_PROGRAM
from toolchain.manifest.models import ClassSpec

# The operator of a program that already contains engines.
_EXECUTE_TARGET = "torch.ops.tensorrt.execute_engine.default"
# The file in which `save_program` records the classes.
_CLASSES_NAME = "trtcross_classes.json"


def read_program(path: Path) -> tuple[ExportedProgram, list[ClassSpec]]:
    """Reads a program, and the classes of its inputs and outputs.

    Weights, constants and example inputs of a program that was exported on a GPU are loaded onto the CPU. No GPU is
    needed: the file has them as plain bytes and only names the device.

    Returns:
        The program, in whose call dicts and tuples replace the classes, and the classes.

    Raises:
        UsageError: the file is not a program, is an artifact already, or was written by a torch that the installed one
            cannot read.
    """
    try:
        container = Container(path)
    except UsageError:
        raise
    except TrtcrossError as error:
        return _read_old(path, error)
    try:
        return _read(container)
    finally:
        container.close()


def save_program(program: ExportedProgram, path: Path) -> None:
    """Writes a program for :func:`read_program`, even if torch itself cannot save the classes of its call."""
    plain = copy.copy(program)
    plain._module_call_graph = [
        replace(entry, signature=copy.copy(entry.signature)) for entry in program.module_call_graph
    ]
    classes = [entry.model_dump() for entry in plain_program(plain)]
    torch.export.save(plain, path, extra_files={_CLASSES_NAME: json.dumps(classes)})


def _read(container: Container) -> tuple[ExportedProgram, list[ClassSpec]]:
    where = str(container.path)
    if MANIFEST_ENTRY in container.entries:
        raise _artifact_already(where)
    try:
        document = parse_graph(container.read(GRAPH_ENTRY), where=where)
    except TrtcrossError as error:
        raise _no_program(error.problem, where) from error
    if any(node.get("target") in (PLACEHOLDER_TARGET, _EXECUTE_TARGET) for node in nodes(document)):
        raise _artifact_already(where)
    moved = _on_cpu(document)
    classes = plain_document(document)
    entries: list[tuple[str, bytes | ZipEntry]] = [(GRAPH_ENTRY, dump_graph(document))]
    for name, entry in container.entries.items():
        if moved and name in TENSOR_LISTS:
            entries.append((name, _tensors_on_cpu(container.read(name), name)))
        elif moved and name == SAMPLE_INPUTS_ENTRY:
            entries.append((name, _sample_inputs_on_cpu(container.read(name))))
        elif name != GRAPH_ENTRY and not name.startswith("extra/"):
            entries.append((name, entry))
    try:
        with spliced_archive(container, entries) as file, mapped_weights(container):
            program = torch.export.load(file if moved or classes else container.path)
    except TrtcrossError:
        raise
    except Exception as error:
        raise UsageError(
            f"torch {torch.__version__} cannot read this program: {_cause(error)}",
            where=where,
            remedy="export the model again with the torch that is installed here; -v shows torch's own report",
        ) from error
    classes += plain_program(program)
    if (entry_name := f"extra/{_CLASSES_NAME}") in container.entries:
        classes = [ClassSpec.model_validate(item) for item in json.loads(container.read(entry_name))]
    return program, classes


def _read_old(path: Path, problem: TrtcrossError) -> tuple[ExportedProgram, list[ClassSpec]]:
    """Reads a file that is not an archive of current torch: a program of torch before 2.8, or no program at all."""
    try:
        program = move_to_device_pass(torch.export.load(path), "cpu")
    except Exception as error:
        raise _no_program(problem.problem, str(path)) from error
    return program, plain_program(program)


def _on_cpu(document: dict[str, Any]) -> bool:
    """Sets a graph's devices to the CPU; returns whether any was different."""
    before = dump_graph(document)
    set_devices(document, "cpu", None)
    return dump_graph(document) != before


def _tensors_on_cpu(data: bytes, name: str) -> bytes:
    document = load_json(data, where=name, limit=OWN_PROGRAM)
    set_devices(document, "cpu", None)
    return json.dumps(document).encode()


def _sample_inputs_on_cpu(data: bytes) -> bytes:
    """Returns the example inputs on the CPU if torch's weights-only mode reads them; otherwise the bytes unchanged."""
    if not data:
        return data
    try:
        inputs = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:  # noqa: BLE001 - torch may raise any class for a pickle that it refuses
        return data
    buffer = io.BytesIO()
    torch.save(inputs, buffer)
    return buffer.getvalue()


def _cause(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _artifact_already(where: str) -> UsageError:
    return UsageError(
        "this is an artifact already: it holds TensorRT engines",
        where=where,
        remedy="give the program that it was built from",
    )


def _no_program(problem: str, where: str) -> UsageError:
    return UsageError(
        f"this is not a program that torch.export.save wrote: {problem}",
        where=where,
        remedy="save the model with torch.export.save(torch.export.export(model, args), path)",
    )
